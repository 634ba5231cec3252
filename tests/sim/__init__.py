"""Both state machines in virtual time, with everything that goes wrong between them."""
