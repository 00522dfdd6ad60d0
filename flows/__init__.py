"""What happens in which order: Prefect flows, the recipes and the command line."""
