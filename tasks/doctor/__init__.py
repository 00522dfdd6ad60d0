"""What `autosparse doctor` looks at, and what a run must know before it starts."""
