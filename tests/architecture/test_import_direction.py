"""Who may import whom: flows -> tasks -> {models | storage}, services behind one door each."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"flows", "tasks", "models", "storage"}
SERVICES = {"prefect", "ray", "mlflow", "pyarrow", "s3fs", "fsspec"}

# folder -> (our packages it may import, services it may import)
ALLOWED = {
    "models": (set(), set()),
    "storage": ({"autosparse.models.errors", "autosparse.models.networks.torchvision_guard"}, {"pyarrow", "s3fs", "fsspec"}),
    "tasks/worker": ({"models", "storage", "autosparse.tasks.settings", "autosparse.tasks.worker"}, {"ray"}),
    "tasks": ({"models", "storage", "tasks"}, {"prefect"}),
    "flows": ({"models", "storage", "tasks", "flows"}, {"prefect"}),
}
DOORS = {
    "tasks/cluster/connection.py": {"ray"},
    "tasks/cluster/jobs.py": {"ray"},
    "tasks/cluster/process_group.py": {"ray"},
    "tasks/tracking/tracker.py": {"mlflow"},
    "tasks/tracking/records.py": {"mlflow"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def sources(folder: str) -> list[Path]:
    files = (ROOT / folder).rglob("*.py")
    return [path for path in files if folder != "tasks" or "worker" not in path.parts]


def below(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("folder", ALLOWED)
def test_each_folder_imports_only_what_it_may(folder: str) -> None:
    ours, services = ALLOWED[folder]
    for path in sources(folder):
        key = str(path.relative_to(ROOT))
        for name in imports(path):
            top = name.split(".")[0]
            if top in OURS and not (folder == "models" and top == "models"):
                assert below(name, ours) or (folder == "storage" and top == "storage"), f"{key} imports {name}"
            if top in SERVICES:
                assert top in services | DOORS.get(key, set()), f"{key} imports {name}"


def test_only_the_pipeline_imports_subflows_and_nobody_outside_flows_imports_flows() -> None:
    for folder in ("models", "storage", "tasks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not any(below(name, {"flows"}) for name in imports(path)), path
    subflows = {"autosparse.flows.iterative_pruning", "autosparse.flows.scorer_training", "autosparse.flows.target_fanout"}
    users = {path.name for path in (ROOT / "flows").glob("*.py") if imports(path) & subflows}
    assert users == {"autosparse_pipeline.py"}
    users = {path.name for path in (ROOT / "flows").glob("*.py") if imports(path) & {"autosparse.flows.valley"}}
    assert users == {"autosparse_pipeline.py", "valley_command.py"}  # the one subflow that also works on a finished run


def test_package_files_hold_a_docstring_and_nothing_else() -> None:
    for top in OURS:
        for path in (ROOT / top).rglob("__init__.py"):
            body = ast.parse(path.read_text()).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), path


def test_names_that_would_shadow_other_packages_are_not_there() -> None:
    assert not (ROOT / "docker/__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))
