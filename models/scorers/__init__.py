"""Learned modules from features to scores, one kind per file; `registry.SCORERS` is the only door."""
