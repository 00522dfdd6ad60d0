"""One unit of work per file: spec and addresses in, a small report out."""
