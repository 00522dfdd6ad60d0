"""Who may import whom: flows -> tasks -> library -> {models | storage}, services behind one door each, no circles."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOF = "autosparse"
FOLDERS = ("flows", "tasks", "autosparse/library", "models", "storage")
SERVICES = {"prefect", "ray", "mlflow", "pyarrow", "s3fs", "fsspec"}

# folder -> (our packages it may import, services it may import)
ALLOWED = {
    "models": ({"models"}, set()),
    "storage": ({"storage", "models.errors", "models.networks.torchvision_guard"}, {"pyarrow", "s3fs", "fsspec"}),
    "autosparse/library": ({"models", "storage", "library"}, set()),
    "tasks/worker": ({"models", "storage", "library", "tasks.own_code", "tasks.settings", "tasks.worker"}, {"ray"}),
    "tasks": ({"models", "storage", "library", "tasks"}, {"prefect"}),
    "flows": ({"models", "storage", "library", "tasks", "flows"}, {"prefect"}),
}
DOORS = {
    "tasks/cluster/connection.py": {"ray"},
    "tasks/cluster/jobs.py": {"ray"},
    "tasks/cluster/orders.py": {"ray"},
    "tasks/cluster/growth.py": {"ray"},
    "tasks/cluster/launcher.py": {"ray"},
    "tasks/cluster/sharing.py": {"ray"},
    "tasks/cluster/start.py": {"ray"},
    "tasks/cluster/process_group.py": {"ray"},
    "tasks/cluster/series.py": {"ray"},
    "tasks/tracking/tracker.py": {"mlflow"},
    "tasks/tracking/records.py": {"mlflow"},
    "tasks/tracking/reachable.py": {"mlflow"},
    "tasks/tracking/registry.py": {"mlflow"},
    "tasks/tracking/served_scorer.py": {"mlflow"},
    "tasks/tracking/removal.py": {"mlflow"},
}


def modules() -> dict[str, Path]:
    """Every module of ours by its import name."""
    found = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            found[name_of(path.with_suffix("")).removesuffix(".__init__")] = path
    return found


def name_of(path: Path) -> str:
    """The import name of a module or a folder."""
    parts = path.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == ROOF else (ROOF, *parts))


def imports(path: Path) -> set[str]:
    """Names of modules and of what is taken out of them; imports within functions count as any other."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def sources(folder: str) -> list[Path]:
    files = (ROOT / folder).rglob("*.py")
    return [path for path in files if folder != "tasks" or "worker" not in path.parts]


def below(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("folder", ALLOWED)
def test_each_folder_imports_only_what_it_may(folder: str) -> None:
    ours, services = ALLOWED[folder]
    known = modules()
    for path in sources(folder):
        key = str(path.relative_to(ROOT))
        for name in imports(path):
            top = name.split(".")[0]
            if name in known and known[name].name != "__init__.py":  # which hold nothing
                assert below(name.removeprefix(f"{ROOF}."), ours), f"{key} imports {name}"
            if top in SERVICES:
                assert top in services | DOORS.get(key, set()), f"{key} imports {name}"


def test_no_import_without_the_roof() -> None:
    for path in ROOT.rglob("*.py"):
        if not {".venv", "build"} & set(path.relative_to(ROOT).parts):
            assert not {name.split(".")[0] for name in imports(path)} & set(FOLDERS), path


def test_no_circles() -> None:
    known = modules()
    uses = {name: {other for other in imports(path) if other in known and other != name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(uses[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in known:
        visit(name, ())


def test_the_list_of_packages_is_complete() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {name for name, path in modules().items() if path.name == "__init__.py"}
    folders = {name_of(path.parent) for path in modules().values()}
    assert sorted(listed) == sorted({ROOF, *there}) == sorted({ROOF, *folders})


def test_files_that_are_not_code_are_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    homes = {package: ROOT.joinpath(*package.split(".")[1:]) for package in listed}
    found = {path for package, home in homes.items() for pattern in listed[package] for path in home.glob(pattern)}
    there = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert found == {path for path in there if path.suffix not in (".py", ".pyc")}


def test_only_the_pipeline_imports_subflows_and_nobody_outside_flows_imports_flows() -> None:
    for folder in ("models", "storage", "autosparse/library", "tasks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not any(below(name, {"autosparse.flows"}) for name in imports(path)), path
    subflows = {"autosparse.flows.iterative_pruning", "autosparse.flows.scorer_training", "autosparse.flows.target_fanout"}
    users = {path.name for path in (ROOT / "flows").glob("*.py") if imports(path) & subflows}
    assert users == {"autosparse_pipeline.py"}
    users = {path.name for path in (ROOT / "flows").glob("*.py") if imports(path) & {"autosparse.flows.valley"}}
    assert users == {"autosparse_pipeline.py", "valley_command.py"}  # the one subflow that also works on a finished run


def test_package_files_hold_a_docstring_and_nothing_else() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("__init__.py"):
            body = ast.parse(path.read_text()).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), path


def test_names_that_would_shadow_other_packages_are_not_there() -> None:
    assert not (ROOT / "docker/__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))
