"""The library: prune, hold, shrink and export anybody's network."""
