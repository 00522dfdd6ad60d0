"""Python and packages, against what the project's own description asks for."""

import platform
import sys
from importlib import metadata

from autosparse.models.errors import ServiceError
from autosparse.tasks.doctor.finding import Finding, ok
from autosparse.tasks.settings import Settings

PACKAGE, EXTRA = "autosparse", "pipeline"
MEND = f"pip install '{PACKAGE}[{EXTRA}]'"


def python(settings: Settings) -> Finding:
    """The interpreter. Raises ServiceError for a version that is not supported."""
    from packaging.specifiers import SpecifierSet

    wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    if not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        raise ServiceError(f"Python: {platform.python_version()} is not supported; wanted {wanted}", {"mend": "make install PYTHON=..."})
    return ok(f"{platform.python_version()}, {sys.executable}")


def packages(settings: Settings, requirements: list[str] | None = None) -> Finding:
    """What the pipeline needs, by the installed versions. Raises ServiceError that names all that do not fit."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in (metadata.requires(PACKAGE) or [] if requirements is None else requirements)]
    there = {one.name: _version(one.name) for one in wanted if one.marker is None or one.marker.evaluate({"extra": EXTRA})}
    bounds = {one.name: one.specifier for one in wanted}
    wrong = [
        f"{name} {found or 'is missing'} (wanted {bounds[name] or 'any'})"
        for name, found in there.items()
        if found is None or not bounds[name].contains(found, prereleases=True)
    ]
    if wrong:
        raise ServiceError(f"packages: {', '.join(wrong)}; {MEND}", {"mend": MEND})
    shown = ("torch", "ray", "prefect", "mlflow")
    return ok(", ".join(f"{name} {there[name]}" for name in shown if name in there))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
