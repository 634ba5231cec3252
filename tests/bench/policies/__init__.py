"""Our scaling policy against others, on the same traces, in a simulated pool."""
