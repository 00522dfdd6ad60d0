"""Masks: which weights are kept, how many, where, and what flows through them."""
