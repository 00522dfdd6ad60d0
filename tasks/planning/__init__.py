"""What a run will cost: its steps, what each takes, and the whole in words; used by `autosparse plan`, `init`, `run` and the flow."""
