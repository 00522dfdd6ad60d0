"""What runs inside Ray workers: models, storage and ray.train; never Prefect, never MLflow."""
