"""Real Ray, real deaths: containers, controllers, callers and nodes are killed under load."""
