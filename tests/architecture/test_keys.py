"""Keys are spelled in storage/paths.py alone: whoever moves a file of a run has one file to change."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "storage/paths.py"
FOLDERS = "irp|fanout|features|registration|summary|valley"
FILES = "(report|run|spec|failure|scorer|scores|mask|weights|initial|rewind)[.](json|safetensors)"
# a name of a file or folder of a run behind or before a slash; a bare file name, as MLflow shows it, is no key
PART = re.compile(rf"/({FILES}|(round|density|ticket|mask)-|({FOLDERS})(/|$))|(^|/)({FOLDERS}|training)/")
ELSEWHERE = {
    "autosparse/irp": "the deployment",
    "summary/": "a folder of MLflow's",
    "summary/accuracy_density.png": "a file there",
    "/artifacts/summary/report.html": "a page there",
}


def spelled(source: str) -> list[str]:
    """Parts of keys among the texts of a module, f-strings included, docstrings left out."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and isinstance(node.body[0], ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs]
    return [text.value for text in texts if PART.search(text.value) and text.value not in ELSEWHERE]


@pytest.mark.parametrize("folder", ["flows", "tasks", "storage", "models"])
def test_no_other_file_spells_a_part_of_a_key(folder: str) -> None:
    found = {str(path.relative_to(ROOT)): spelled(path.read_text()) for path in (ROOT / folder).rglob("*.py") if path != HOME}
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_the_search_finds_what_it_looks_for() -> None:
    texts = ['f"{step}/report.json"', '"/density-" in key', 'f"{root}/fanout"', 'f"{run.scorer}/registration"', '"/irp/"']
    assert all(spelled(f"found = {text}") for text in texts)
    assert not spelled('"""A docstring with /report.json in it."""\nname = "report.json"')
    assert spelled(HOME.read_text())
