"""Specs in files: read back as they were, numbers and texts as people mean them, every error one line with the file."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosparse.flows.recipes import RECIPES, recipe, smoke
from autosparse.flows.spec_file import spec_in, spec_of
from autosparse.models.errors import SpecError
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.fields import fingerprint, to_plain
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec

Typed = Callable[..., subprocess.CompletedProcess[str]]


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def text_with(**changes: Any) -> str:
    """The smoke recipe with fields of its IRP replaced by texts, as YAML that a person might write."""
    plain = to_plain(smoke())
    wanted = {name: f"@{name}@" for name in changes}
    text = json.dumps(plain | {"irp": plain["irp"] | wanted}, indent=1)
    for name, value in changes.items():
        text = text.replace(f'"@{name}@"', str(value))
    return text


@pytest.mark.parametrize("name", RECIPES)
def test_what_recipes_prints_is_read_back(name: str, typed: Typed, tmp_path: Path) -> None:
    printed = typed("recipes", name).stdout
    for ending in ("json", "yaml"):
        found = spec_in(written(tmp_path, printed, f"{name}.{ending}"))
        assert found == recipe(name) and fingerprint(found) == fingerprint(recipe(name))


@pytest.mark.parametrize(
    ("value", "wanted"), [("1e-3", 0.001), ("1.e-3", 0.001), (".001", 0.001), ("0.1E-2", 0.001), ("1", 1.0), ("+1e-1", 0.1)]
)
def test_numbers_as_people_write_them(value: str, wanted: float) -> None:
    found = spec_of(text_with(final_density=value), Path("mine.yaml")).irp.final_density
    assert found == wanted and isinstance(found, float)


def test_one_part_may_be_written_once(tmp_path: Path) -> None:
    plain = to_plain(smoke())
    train = plain["irp"].pop("train")
    assert plain["fanout"].pop("train") == train
    irp, fanout = json.dumps(plain.pop("irp"))[1:-1], json.dumps(plain.pop("fanout"))[1:-1]
    parts = [f"{name}: {json.dumps(value)}" for name, value in plain.items()]
    text = "\n".join([*parts, f"irp: {{{irp}, train: &train {json.dumps(train)}}}", f"fanout: {{{fanout}, train: *train}}"])
    assert spec_in(written(tmp_path, text)) == smoke()


def test_paths_of_data_are_seen_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/person")
    base = smoke()
    places = {
        "pictures": f"{tmp_path}/specs/pictures",
        "../a": f"{tmp_path}/a",
        "~/b": "/home/person/b",
        "/c": "/c",
        "s3://x/y": "s3://x/y",
    }
    targets = tuple(
        TargetSpec(network=NetworkSpec(name="resnet8", width=width), data=DataSpec(name="parquet", path=path))
        for width, path in enumerate(places, 1)
    )
    spec = replace(base, data=DataSpec(name="image_folder", path="here"), fanout=replace(base.fanout, targets=targets))
    (tmp_path / "specs").mkdir()
    file = written(tmp_path / "specs", json.dumps(to_plain(spec)))
    monkeypatch.chdir(tmp_path)
    for one in (file, file.relative_to(tmp_path)):
        found = spec_in(one)
        assert [target.data and target.data.path for target in found.fanout.targets] == list(places.values())
        assert found.data.path == f"{tmp_path}/specs/here"
        assert fingerprint(found) == fingerprint(spec)


BAD = {
    "a field that is not there": (text_with(roundz=3), "irp.roundz: 'roundz' is not known; did you mean 'rounds'?"),
    "a value": (text_with(rounds=0), "irp.rounds: 0 is not allowed; allowed: >= 1 and <= 200"),
    "no as a text": (text_with(criterion="no"), "irp.criterion: 'no' is not allowed; allowed: magnitude | snip"),
    "a switch as a text": (text_with(criterion="true"), "irp.criterion: True is not allowed; allowed: magnitude | snip"),
    "yes as a switch": (text_with(networks="[{name: resnet8, prune_head: yes}]"), "irp.networks.0.prune_head: 'yes' is not allowed"),
    "a date": (text_with(rounds="2024-01-01"), "irp.rounds: '2024-01-01' is not allowed; allowed: a value of type int"),
    "a number with underscores": (text_with(rounds="1_0"), "irp.rounds: '1_0' is not allowed; allowed: a value of type int"),
    "not a number": (text_with(final_density=".nan"), "irp.final_density: nan is not allowed"),
    "a number of many digits": (text_with(rounds="9" * 5000), "Exceeds the limit"),
    "nothing": ("", "mine.yaml: nothing in it; allowed: the fields of a spec"),
    "comments alone": ("# later\n", "mine.yaml: nothing in it"),
    "a list": ("- 1\n- 2\n", "mine.yaml: a list is not allowed; allowed: the fields of a spec"),
    "a text": ("digits", "mine.yaml: a str is not allowed"),
    "syntax": ("data:\n  name: [digits\nirp: 3\n", "mine.yaml:3: not YAML (while parsing a flow sequence"),
    "a tab": ("data:\n\tname: digits\n", "mine.yaml:2: not YAML (while scanning for the next token"),
    "a key twice": ("data:\n  name: digits\n  pad: 1\n  name: mnist\n", "mine.yaml:4: not YAML ('name' is there twice)"),
    "a key that is no name": ("1: 2\n", "mine.yaml:1: not YAML ('1' is no name of a field)"),
    "a list as a key": ("? [a]\n: 2\n", "mine.yaml:1: not YAML ('sequence' is no name of a field)"),
    "two documents": ("a: 1\n---\nb: 2\n", "mine.yaml:2: not YAML (expected a single document"),
    "an object of Python": ("a: !!python/object/apply:os.system ['true']\n", "mine.yaml:1: not YAML (could not determine a constructor"),
    "a tag that does not fit": ("a: !!bool maybe\n", "mine.yaml: 'maybe'"),
    "an alias of nothing": ("a: *b\n", "mine.yaml:1: not YAML (found undefined alias 'b')"),
    "an alias of itself": ("a: &a [*a]\n", "mine.yaml: values within values without end"),
    "aliases without end": (
        "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else '1'}]" for n in range(12)),
        "mine.yaml: more than 200,000 values are not allowed",
    ),
    "deep": ("[" * 5000, "mine.yaml: values within values without end"),
    "a control character": ("a: \0\n", "mine.yaml: not YAML (unacceptable character"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_in_a_file_is_one_line_with_the_file(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, message = BAD[case]
    written(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        spec_in(Path("mine.yaml"))
    lines = str(caught.value).splitlines()
    assert any(message in line for line in lines), lines
    assert all(line.startswith("mine.yaml:") and len(line) < 600 for line in lines)
    assert case == "a field that is not there" or len(lines) == 1


def test_a_missing_part_says_what_belongs_there() -> None:
    plain = to_plain(smoke())
    del plain["irp"]["rounds"], plain["scoring"]
    with pytest.raises(SpecError) as caught:
        spec_of(json.dumps(plain), Path("x.json"))
    assert str(caught.value).splitlines() == [
        "x.json: irp.rounds: missing; allowed: int >= 1 and <= 200",
        "x.json: scoring: missing; allowed: an object with batches, batch_size, lookahead_steps, lookahead_lr",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.json: nothing in it"),
        ('{"data": {"name": "digits",}}', "x.json:1: not JSON ("),
        ('{\n"data": 1,\n"data": 2}', "x.json: 'data' is there twice; allowed: once"),
        ("[" * 100_000, "x.json: values within values without end"),
        ("[]", "x.json: a list is not allowed"),
    ],
)
def test_what_is_wrong_in_json(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(text, Path("x.json"))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_what_is_no_file_with_a_spec(tmp_path: Path, typed: Typed, clean_settings: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    (tmp_path / "large.yaml").write_bytes(b"# " + b"x" * 200_000)
    (tmp_path / "mine.toml").write_text("a = 1\n")
    cases = {
        "nowhere.yaml": "nowhere.yaml' is not allowed; allowed: a file that can be read (No such file or directory)",
        "folder.yaml": "folder.yaml' is not allowed; allowed: a file that can be read (Is a directory)",
        "latin.yaml": "latin.yaml: byte 3 is not UTF-8; allowed: text in UTF-8",
        "large.yaml": "large.yaml: more than 200,000 bytes are not allowed",
        "mine.toml": "mine.toml' is not allowed; allowed: a file that ends in .yaml, .yml, .json",
    }
    for name, message in cases.items():
        for command in ("run", "validate"):
            done = typed(command, "--spec", str(tmp_path / name))
            assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done
    assert not clean_settings.exists() or not (clean_settings / "storage").exists()


def test_commands_take_a_file_with_changes_on_top(tmp_path: Path, typed: Typed) -> None:
    file = written(tmp_path, text_with(rounds=3))
    done = typed("validate", "--spec", str(file))
    assert done.returncode == 0 and "x 3 rounds = 3 trainings" in done.stdout, done
    changed = typed("validate", "--spec", str(file), "--set", "irp.rounds=4", "--name", "mine")
    assert changed.stdout.startswith("mine: spec ") and "x 4 rounds" in changed.stdout
    both = typed("validate", "--spec", str(file), "--recipe", "smoke")
    assert (both.returncode, both.stderr) == (2, f"error: --spec: '{file}' is not allowed; allowed: either --spec or --recipe (smoke)\n")
    wrong = typed("run", "--spec", str(written(tmp_path, text_with(rounds=0, final_density=2), "wrong.yaml")))
    assert wrong.returncode == 2 and wrong.stderr.splitlines() == [
        f"error: {tmp_path}/wrong.yaml: irp.rounds: 0 is not allowed; allowed: >= 1 and <= 200",
        f"error: {tmp_path}/wrong.yaml: irp.final_density: 2.0 is not allowed; allowed: > 0 and <= 1",
    ]
