"""`autosparse init`: a whole spec for one's own network and data, as a file that a person reads and changes."""
