"""What an arm is, what it is called, and which arms a run has."""
