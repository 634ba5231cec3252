"""Policies of others, each written from its public source; what they do, not their code."""
