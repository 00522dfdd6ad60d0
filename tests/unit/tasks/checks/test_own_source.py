"""What counts as the source of a person's module, and that a run does not go on with another one unasked."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import ConflictError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, override, to_plain
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths
from autosparse.tasks.checks.own_source import check_same_code, code_of, source_digest

FILES = {
    "my_net.py": "import my_layers, json\nfrom my_pkg.blocks import block\n\ndef build(num_classes):\n    import my_late\n",
    "my_layers.py": "WIDTH = 3\n",
    "my_late.py": "",
    "my_other.py": "",
    "my_pkg/__init__.py": "",
    "my_pkg/blocks.py": "from . import deep\nfrom .deep import DEPTH\nfrom ..my_net import build\nblock = 1\n",
    "my_pkg/deep.py": "DEPTH = 1\n",
    "my_pkg/unused.py": "",
    "my_pkg/broken.py": "def",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules of a person, where they stand."""
    home = tmp_path / "code"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    monkeypatch.syspath_prepend(home)
    yield home
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("my_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("my_net", {"my_net.py", "my_layers.py", "my_late.py", "my_pkg/__init__.py", "my_pkg/blocks.py", "my_pkg/deep.py"}),
        ("my_layers", {"my_layers.py"}),
        ("my_pkg", {"my_pkg/__init__.py"}),
        ("my_pkg.deep", {"my_pkg/__init__.py", "my_pkg/deep.py"}),
        ("my_pkg.broken", {"my_pkg/__init__.py", "my_pkg/broken.py"}),
    ],
)
def test_what_counts_is_what_is_imported_below_the_same_folder(folder: Path, module: str, counts: set[str]) -> None:
    before = source_digest(module)
    assert before and len(before) == 32
    changed = set()
    for name, text in FILES.items():
        (folder / name).write_text(f"{text}\n# a change\n")
        if source_digest(module) != before:
            changed.add(name)
        (folder / name).write_text(text)
        assert source_digest(module) == before
    assert changed == counts
    assert module not in sys.modules, "it is looked at, not run"


def test_the_place_does_not_count_and_a_moved_line_does(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_digest("my_pkg.deep")
    folder.rename(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    sys.modules.pop("my_pkg")
    assert source_digest("my_pkg.deep") == before


def test_of_an_installed_package_only_its_own_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"my_one/__init__.py": "import my_two", "my_two.py": "", "my_three.py": "import my_two"}.items():
        (tmp_path / "site-packages" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site-packages" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    before = [source_digest(module) for module in ("my_one", "my_two", "my_three")]
    (tmp_path / "site-packages/my_two.py").write_text("# a change")
    after = [source_digest(module) for module in ("my_one", "my_two", "my_three")]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize("module", ["builtins", "no_such_module", "no_such.module", "autosparse.models.networks.lenet"])
def test_what_has_no_source_of_its_own_has_no_digest(module: str) -> None:
    assert source_digest(module) is None


# The record of a run


def spec(**changes: Any) -> ExperimentSpec:
    return override(smoke(), {"irp.networks.0.name": "my_net:build", **changes})


def test_networks_and_methods_of_all_places_are_in_the_record(folder: Path) -> None:
    names = {"fanout.targets.0.network.name": "my_layers:build", "fanout.methods": ["snip", "tests.plugins.outside:DECAY(c=0.5)"]}
    assert sorted(code_of(spec(**names))) == ["my_layers", "my_net", "tests.plugins.outside"]
    assert code_of(smoke()) == code_of(override(smoke(), {"irp.networks.0.name": "timm:resnet10t"})) == {}


def test_changed_source_is_refused_with_both_digests_until_it_is_forced(folder: Path, tmp_path: Path) -> None:
    store, paths, run = open_store(str(tmp_path / "store")), RunPaths("mine"), spec()
    first = check_same_code(store, paths, run)
    assert first == {"code": {"my_net": source_digest("my_net")}}
    store.write_json(paths.spec, first)
    assert check_same_code(store, paths, run) == first
    (folder / "my_pkg/deep.py").write_text("DEPTH = 2\n")
    now = code_of(run)
    with pytest.raises(ConflictError) as caught:
        check_same_code(store, paths, run)
    assert str(caught.value) == (
        f"name: 'mine' was begun with my_net of source {first['code']['my_net'][:12]}, now {now['my_net'][:12]}; "
        "allowed: that source, another --name, or --force, which mixes them in one result"
    )
    mixed = check_same_code(store, paths, run, force=True)
    assert mixed == {"code": now, "earlier_code": [first["code"]]}
    store.write_json(paths.spec, mixed)
    assert check_same_code(store, paths, run) == mixed, "what was mixed once stays known"


def test_a_record_of_an_earlier_version_goes_on(folder: Path, tmp_path: Path) -> None:
    store, paths = open_store(str(tmp_path / "store")), RunPaths("mine")
    store.write_json(paths.spec, {"versions": {}})
    assert check_same_code(store, paths, spec()) == {"code": code_of(spec())}
    assert check_same_code(store, paths, smoke()) == {}


def test_the_command_refuses_it_before_anything_starts(tmp_path: Path, typed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    changes = {"fanout.methods": ["snip", "tests.plugins.outside:size"]}
    run = override(smoke(), changes)
    record = {"spec": to_plain(run), "fingerprint": fingerprint(run), "name": "mine", "code": {"tests.plugins.outside": "0" * 32}}
    open_store(str(tmp_path / "storage")).write_json(RunPaths("mine").spec, record)
    asked = ("--recipe", "smoke", "--name", "mine", "--set", "fanout.methods=[snip,tests.plugins.outside:size]")
    for command in ("run", "validate"):
        done = typed(command, *asked, AUTOSPARSE_HOME=str(tmp_path))
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "was begun with tests.plugins.outside of source 000000000000, now " in done.stderr
