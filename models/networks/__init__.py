"""Network definitions, one family per file; `registry.build_network` is the only door."""
