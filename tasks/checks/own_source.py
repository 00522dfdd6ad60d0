"""The source behind `package.module:object`: a digest per module in the record of a run, and no going on with another one unasked.

What counts as the source of a module: its file, and the files of the modules that it imports, and they, and so on, wherever the import
is written, as far as they lie below the same folder: the one that holds its outermost package, or the file itself. Of a package that was
installed (in site-packages) only that package. A package's `__init__.py` counts with what is in it. An import by a computed name, data
files and autosparse itself are not seen.
"""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autosparse.models.errors import ConflictError
from autosparse.models.methods.names import family
from autosparse.models.networks.registry import ZOOS
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.storage.paths import RunPaths
from autosparse.storage.store import Store

SHOWN = 12  # hex digits of a digest
INSTALLED = ("site-packages", "dist-packages")
OURS = "autosparse"


def code_of(spec: ExperimentSpec) -> dict[str, str]:
    """Module -> digest of its source, of every network, method and data set that a spec names `package.module:object`."""
    targets = spec.fanout.targets
    networks = [network.name for network in (*spec.irp.networks, *(target.network for target in targets))]
    data = [spec.data.name, *(spec.data_of(target).name for target in targets)]
    named = [name.partition(":") for name in (*networks, *map(family, spec.fanout.all_methods), *data)]
    modules = sorted({module for module, colon, _ in named if colon and module not in ZOOS})
    return {module: digest for module in modules if (digest := source_digest(module))}


def check_same_code(store: Store, paths: RunPaths, spec: ExperimentSpec, *, force: bool = False) -> dict[str, Any]:
    """What the record of a run says about code from now on: that of now, and all earlier one that `force` mixed it with.

    Raises ConflictError when the run was begun with another source of a module, unless `force`.
    """
    now = code_of(spec)
    record = store.read_json(paths.spec) if store.exists(paths.spec) else {}
    before, mixed = record.get("code", {}), record.get("earlier_code", [])
    changed = [module for module in now if before.get(module, now[module]) != now[module]]
    if changed and not force:
        differ = ", ".join(f"{module} of source {before[module][:SHOWN]}, now {now[module][:SHOWN]}" for module in changed)
        raise ConflictError(
            f"name: {paths.name!r} was begun with {differ}; allowed: that source, another --name, or --force, which mixes them in one "
            "result"
        )
    mixed = [*mixed, before] if changed else mixed
    return ({"code": now} if now else {}) | ({"earlier_code": mixed} if mixed else {})


def source_digest(module: str) -> str | None:
    """32 hex digits over the names and bytes of a module's source files; None where there is no file, as of what is built in."""
    file = _file_of(module)
    if file is None or module.partition(".")[0] == OURS:
        return None
    above = list(file.parents)
    root = above[min(module.count(".") + (file.name == "__init__.py"), len(above) - 1)]
    digest = hashlib.sha256()
    for path in sorted({file, *_sources(module, root)}):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)} ".encode() + content)
    return digest.hexdigest()[:32]


def _file_of(module: str) -> Path | None:
    """Where a module lies, which is not run for that; the packages around it are, unless they are imported already."""
    try:
        found = getattr(sys.modules.get(module), "__spec__", None) or find_spec(module)
    except (ImportError, ValueError):
        return None
    file = Path(found.origin) if found and found.origin else None
    return file if file and file.is_file() else None


def _sources(module: str, root: Path) -> set[Path]:
    installed = root.name in INSTALLED or root == Path(sysconfig.get_paths()["stdlib"])
    found: set[Path] = set()
    todo = [module]
    while todo:
        for path in _files(todo.pop(), root):
            if path not in found:
                found.add(path)
                names = {name for name in _imports(path, root) if name.partition(".")[0] != OURS}
                todo += [name for name in names if not installed or name.partition(".")[0] == module.partition(".")[0]]
    return found


def _files(name: str, root: Path) -> Iterator[Path]:
    """Of `a.b.c` what there is of a/__init__.py, a.py, a/b/__init__.py and so on: an object's name at the end is none of them."""
    place = root
    for part in name.split("."):
        place = place / part
        yield from (path for path in (place / "__init__.py", place.with_name(f"{part}.py")) if path.is_file())


def _imports(path: Path, root: Path) -> Iterator[str]:
    """What a file imports, as dotted names from `root`; nothing of a file that is no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = path.relative_to(root).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
