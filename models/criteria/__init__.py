"""Fixed formulas that score every prunable weight, one family per file; `registry.CRITERIA` is the only door."""
