"""Decisions without I/O: events or facts go in, effects or values come out, and `now` is an argument."""
