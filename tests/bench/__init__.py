"""Benchmarks: every promise in numbers, against its peer, in one run. `python -m tests.bench`."""
