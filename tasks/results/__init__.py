"""Numbers about arms: rows, differences, verdicts."""
