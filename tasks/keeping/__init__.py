"""What is kept of runs, and what goes."""
