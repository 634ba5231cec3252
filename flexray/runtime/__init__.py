"""What touches the world: Ray, SQLite, the clock, threads.

One rule: it performs the effects that `flexray.core` decides and reports what happened, and decides nothing.
It is the only package that imports Ray.
"""
