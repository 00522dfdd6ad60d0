"""What `autosparse up` starts and `autosparse down` ends."""
