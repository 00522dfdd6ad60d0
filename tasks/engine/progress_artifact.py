"""A progress bar in the Prefect UI."""

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from autosparse.tasks.engine.run import log
from autosparse.tasks.engine.step import artifact_key


class ProgressArtifact:
    """One bar; best effort, because a run must not fail over it."""

    def __init__(self, key: str, description: str) -> None:
        self._id = None
        try:
            self._id = create_progress_artifact(0.0, key=artifact_key(key), description=description)
        except Exception as error:
            log().warning("Prefect did not take the progress bar of %s (%s)", description, error)

    def update(self, share: float) -> None:
        """Move the bar to a share in [0, 1]."""
        if self._id is None:
            return
        try:
            update_progress_artifact(self._id, progress=100.0 * share)  # type: ignore[arg-type]
        except Exception as error:
            log().warning("Prefect did not take the progress (%s)", error)
