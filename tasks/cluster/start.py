"""Connect to a Ray, or start a local one: waited for on a machine that is busy, and taken away whole where it fails."""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ray

from autosparse.models import errors
from autosparse.storage.cpus import machine_slots
from autosparse.tasks.cluster.folder import RAY, RayFolder
from autosparse.tasks.cluster.object_store import OBJECT_STORE_BYTES, object_store_folder
from autosparse.tasks.cluster.orphans import end_those_of
from autosparse.tasks.limits import START, limit
from autosparse.tasks.settings import Settings

KEPT_LOGS = 5  # sessions of local Rays whose logs are kept after a job, or their start, failed
LOGS = "ray-logs"
TIMED_OUT = "timed out"  # what Ray says of a node that was too slow


def start(settings: Settings, code: Path | None, tell: Callable[[str], None]) -> RayFolder | None:
    """Connect, or start a local Ray in a folder of its own, which is returned. One that is slow to start is tried again.

    Raises ServiceError.
    """
    begin, most = time.monotonic(), limit(START)
    while True:
        try:
            return _started(settings, code)
        except errors.AutosparseError:
            raise
        except Exception as error:  # a node that does not start in time is a bare Exception of Ray's
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            waited = time.monotonic() - begin
            slow = settings.ray_address is None and (isinstance(error, TimeoutError) or TIMED_OUT in reason)
            if not slow or waited > most:
                tried = f", {waited:.0f} s of trying, {START}" if slow else ""
                logs = f"; its logs: {settings.home / LOGS}" if settings.ray_address is None else ""
                raise errors.ServiceError(
                    f"ray: {name_of(settings)} could not be reached ({reason}{tried}){logs}{hint(settings)}"
                ) from error
            tell(f"waiting: a local Ray is slow to start ({reason}), tried again; {waited:.0f} of at most {most:.0f} s")


def _started(settings: Settings, code: Path | None) -> RayFolder | None:
    common = {"namespace": "autosparse", "log_to_driver": False, "logging_level": "ERROR"}
    if settings.ray_address:
        elsewhere = code and not settings.environment  # `up` starts its Ray on this machine
        stuck = f"ray: {name_of(settings)} did not answer for {limit(START):.0f} s, {START}{hint(settings)}; the same command goes on"
        with given_up(limit(START), stuck):
            ray.init(address=settings.ray_address, runtime_env={"working_dir": str(code)} if elsewhere else None, **common)
        return None
    # Ray's own processes look for their cluster in this folder: in the shared one they would find that of somebody else, alive or dead
    folder = RayFolder.make()
    os.environ["RAY_TMPDIR"] = str(folder.path)
    try:
        ray.init(
            address="local",  # never a cluster that nobody asked for
            num_cpus=machine_slots(),
            object_store_memory=OBJECT_STORE_BYTES,
            _plasma_directory=object_store_folder(str(folder.path)),
            include_dashboard=False,  # ten processes that nobody asks
            **common,
        )
        (folder.path / RAY / "ray_current_cluster").write_text(ray.get_runtime_context().gcs_address)
        return folder
    except BaseException:
        ray.shutdown()
        keep_logs(folder.session / "logs", kept_logs(settings, folder))
        end_those_of(folder.path)  # a node that did not start in time is not known to `ray.shutdown`
        folder.remove()
        raise


@contextlib.contextmanager
def given_up(seconds: float, line: str) -> Iterator[None]:
    """End this process with that line where the block takes longer.

    A Ray that is killed and started again at the same address while a driver connects to it leaves the driver in a call of C++ that
    never returns: no exception reaches it, and handlers at exit would wait for it.
    """

    def end() -> None:
        os.write(sys.stderr.fileno(), f"error: {line}\n".encode())
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def kept_logs(settings: Settings, folder: RayFolder) -> Path:
    """Where the logs of a local Ray are kept."""
    return settings.home / LOGS / folder.session.name


def keep_logs(logs: Path, kept: Path) -> None:
    """Copy the logs of a local Ray, of which nothing else is left, and drop the oldest copies; best effort."""
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(logs, kept, symlinks=True, ignore_dangling_symlinks=True)
        for old in sorted(kept.parent.iterdir())[:-KEPT_LOGS]:
            shutil.rmtree(old, ignore_errors=True)


def name_of(settings: Settings) -> str:
    """What messages call the Ray of the settings."""
    return settings.ray_address or "a local Ray"


def hint(settings: Settings) -> str:
    """What helps where `up` started it."""
    return "; `autosparse up` starts it again" if settings.environment else ""
