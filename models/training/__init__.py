"""One training: the loop, its step, the images it reads."""
