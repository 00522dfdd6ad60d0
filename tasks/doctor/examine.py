"""All checks side by side, each with a time limit."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autosparse.models.errors import AutosparseError
from autosparse.tasks.doctor import folders, machine, packages, servers
from autosparse.tasks.doctor.finding import WRONG, Finding
from autosparse.tasks.settings import Settings

SECONDS = 30.0
Check = Callable[[Settings], Finding]

CHECKS: dict[str, Check] = {
    "Python": packages.python,
    "packages": packages.packages,
    "home": folders.home,
    "home disk": folders.home_disk,
    "storage": folders.storage,
    "disk room": folders.room,
    "code": folders.code,
    "TMPDIR": machine.temporary,
    "/dev/shm": machine.object_store,
    "CPUs": machine.cpus,
    "memory": machine.memory,
    "GPU": machine.gpu,
    "loopback": servers.loopback,
    "proxies": servers.network,
    "ports of up": servers.ports,
    "Prefect": servers.prefect,
    "MLflow": servers.mlflow,
    "Ray": servers.ray,
    "RAY_ADDRESS": servers.stale_ray,
    "clock": servers.clock,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one check found."""

    check: str
    state: str
    said: str
    mend: str | None


def examine(settings: Settings, checks: dict[str, Check] = CHECKS, seconds: float = SECONDS) -> Iterator[Row]:
    """What is found, in the order of the checks; what takes longer than so many seconds from now is wrong."""
    found: dict[str, Finding] = {}
    end = time.monotonic() + seconds
    threads = {name: threading.Thread(target=_look, args=(found, name, check, settings), daemon=True) for name, check in checks.items()}
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, end - time.monotonic()))
        late = Finding(state=WRONG, said=f"{name}: no answer within {seconds:g} s; where the machine is busy, look again")
        one = found.get(name, late)
        yield Row(check=name, state=one.state, said=one.said, mend=one.mend)


def _look(found: dict[str, Finding], name: str, check: Check, settings: Settings) -> None:
    try:
        found[name] = check(settings)
    except AutosparseError as error:
        found[name] = Finding(state=WRONG, said=str(error), mend=error.details.get("mend"))
    except ModuleNotFoundError as error:
        found[name] = Finding(state=WRONG, said=f"{name}: no package {error.name}; {packages.MEND}", mend=packages.MEND)
    except Exception as error:  # a check must not hide the others
        said = (str(error).splitlines() or [""])[0]
        found[name] = Finding(state=WRONG, said=f"{name}: could not be looked at ({type(error).__name__}: {said})")
