"""Bytes to objects and back, local or S3. Knows nothing of pruning beyond column names."""
