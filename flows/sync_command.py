"""`autosparse sync`: what MLflow missed of a run."""

import os

from autosparse.models.errors import without_password
from autosparse.tasks import settings as settings_module

QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING"}


def sync_with_mlflow(name: str) -> str:
    """One line about what was handed over. Raises DataError, ConflictError, ServiceError or TrackingError."""
    settings = settings_module.load()
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    settings_module.export(settings)
    from autosparse.tasks.sync_run import sync_run  # only now: MLflow reads the environment when imported

    done = sync_run(settings, name)
    scorer = f"scorer version {done['version']}" if done["version"] else "no scorer"
    counts = f"{done['records']} records had waited, {done['steps']} steps were made up from storage"
    return f"{without_password(settings.mlflow_uri)} has all of {name}: {counts}, {scorer}"
