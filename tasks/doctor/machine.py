"""What this machine gives: CPUs, memory, GPUs, shared memory, a folder for sockets and temporary files."""

import shutil
from pathlib import Path

from autosparse.storage.cpus import machine_cpus, machine_slots
from autosparse.storage.memory import machine_memory
from autosparse.tasks.cluster.folder import place
from autosparse.tasks.cluster.object_store import OBJECT_STORE_BYTES, SHARED_MEMORY, shared_memory
from autosparse.tasks.doctor.finding import Finding, ok, warning
from autosparse.tasks.settings import Settings

ROOT = Path("/")
LEAST_MEMORY = 3 * 2**30  # Prefect, Ray and one job
MIB, GIB = 2**20, 2**30


def cpus(settings: Settings, root: Path = ROOT) -> Finding:
    """How many jobs with one CPU run at once on a local Ray."""
    found, slots = machine_cpus(root), machine_slots(root)
    if found < 1:
        times = f"jobs take {1 / found:.1f} times as long"
        return warning(f"CPUs: {found:g}, by the limit of a container or a batch system; it counts as one, and {times}")
    return ok(f"{found:g}" + (f", of which jobs get {slots}" if slots != found else ""))


def memory(settings: Settings, root: Path = ROOT) -> Finding:
    """Of the machine, or the limit of a container."""
    found = machine_memory(root)
    if found < LEAST_MEMORY:
        return warning(f"memory: {found / GIB:.1f} GiB; a run with its services needs about {LEAST_MEMORY / GIB:.0f}")
    return ok(f"{found / GIB:.1f} GiB")


def gpu(settings: Settings) -> Finding:
    """What torch sees."""
    import torch

    count = torch.cuda.device_count()
    if count and not torch.cuda.is_available():
        return warning(f"GPU: torch sees {count} and cannot use them; the driver is older than CUDA {torch.version.cuda}")
    if not count and torch.version.cuda is None and shutil.which("nvidia-smi"):
        return warning("GPU: there is one, and this torch is for CPUs", "pip install torch  # a build with CUDA")
    names = sorted({torch.cuda.get_device_name(index) for index in range(count)})
    return ok(f"{count} x {', '.join(names)}" if count else "none")


def temporary(settings: Settings) -> Finding:
    """Where a local Ray has its sockets and logs. Raises ServiceError where there is no place for them."""
    found = place()
    if not found.refused:
        return ok(found.folder)
    said = ", ".join(f"{folder} {reason}" for folder, reason in found.refused.items())
    return warning(f"TMPDIR: {said}; {found.folder} is used for Ray", "export TMPDIR=/a/short/folder")


def object_store(settings: Settings, shared: Path = SHARED_MEMORY) -> Finding:
    """Where Ray's objects lie."""
    free = shared_memory(shared)
    if free >= OBJECT_STORE_BYTES:
        return ok(f"{free / MIB:,.0f} MiB free")
    wanted = OBJECT_STORE_BYTES // MIB
    said = f"{shared}: {free / MIB:.0f} MiB free; Ray's objects may take {wanted}, and go to Ray's folder instead"
    return warning(said, "docker run --shm-size=1g")
