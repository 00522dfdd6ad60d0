"""What a run is asked for: frozen, complete, checked when it is made."""
