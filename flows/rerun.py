"""From the spec of a run back to the shortest command that makes it."""

import json
import shlex
from typing import Any

from autosparse.flows.recipes import RECIPES
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import to_plain


def rerun_command(spec: ExperimentSpec, name: str) -> str:
    """`autosparse run` with the nearest recipe and a `--set` for every field that differs from it; quoted for a shell."""
    wanted = to_plain(spec)
    changes = {recipe: _settable(changed(to_plain(make()), wanted), spec) for recipe, make in RECIPES.items()}
    nearest = min(changes, key=lambda recipe: len(changes[recipe]))
    words = ["autosparse", "run", "--recipe", nearest, "--name", name]
    for path, value in changes[nearest].items():
        words += ["--set", f"{path}={json.dumps(value)}"]
    return shlex.join(words)


def _settable(changes: dict[str, Any], spec: ExperimentSpec) -> dict[str, Any]:
    """Without what is refused beside no sources, because nothing reads it."""
    return {
        path: value for path, value in changes.items() if spec.irp.seeds or path == "irp.seeds" or not path.startswith(("irp.", "scorer."))
    }


def changed(base: Any, wanted: Any, path: str = "") -> dict[str, Any]:
    """Dotted paths of what differs, with the wanted value; whole lists where they differ in length or hold plain values."""
    if base == wanted:
        return {}
    if isinstance(base, dict) and isinstance(wanted, dict) and base.keys() == wanted.keys():
        items: list[tuple[Any, Any, Any]] = [(key, base[key], wanted[key]) for key in base]
    elif isinstance(base, list) and isinstance(wanted, list) and len(base) == len(wanted) and all(isinstance(one, dict) for one in wanted):
        items = list(zip(range(len(base)), base, wanted, strict=True))
    else:
        return {path: wanted}
    return {where: value for key, old, new in items for where, value in changed(old, new, f"{path}.{key}" if path else str(key)).items()}
