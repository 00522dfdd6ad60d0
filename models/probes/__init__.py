"""Measurements of the loss landscape around trained networks: one probe per file, all of them in `registry.py`."""
