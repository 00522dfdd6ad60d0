from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.models.errors import AutosparseError, SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import fingerprint, override
from autosparse.models.specs.run_specs import DataSpec
from autosparse.tasks.checks.preflight import check_local_data, check_spec
from tests.image_sets import DARK, RED, encoded, write_parquet


def on(data: DataSpec) -> ExperimentSpec:
    """The smoke recipe with a second target, on `data`."""
    base = smoke()
    target = replace(base.fanout.targets[0], data=data)
    return replace(base, fanout=replace(base.fanout, targets=(*base.fanout.targets, target)))


def write_sorted(folder: Path) -> Path:
    write_parquet(folder / "train.parquet", [encoded(RED), encoded(DARK)] * 5, [0] * 5 + [1] * 5, label="kind")
    return folder


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "label: None is not allowed; allowed: kind, which are columns of "),
        ({"label": "sort"}, "label: 'sort' is not allowed; allowed: kind, which are columns of "),
        ({"label": "kind"}, "path: .* has no test split with labels "),
        ({"label": "kind", "image": "photo"}, "image: 'photo' is not allowed; allowed: img, which are columns of "),
    ],
)
def test_what_is_wrong_with_local_data_is_said_before_anything_starts_under_its_own_field(
    tmp_path: Path, fields: dict[str, Any], said: str
):
    spec = on(DataSpec(name="parquet", path=str(write_sorted(tmp_path)), **fields))
    with pytest.raises(AutosparseError, match=rf"^fanout.targets.1.data.{said}[^\n]*$"):
        check_local_data(spec, None)


def test_good_local_data_is_decoded_into_the_cache(tmp_path: Path):
    data = DataSpec(name="parquet", path=str(write_sorted(tmp_path / "set")), label="kind", test_share=0.2, size=4)
    check_local_data(on(data), tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("images.npy"))) == 4, "two halves of the digits, two of the set"


def test_names_of_the_hub_are_checked_without_asking_it():
    check_spec(on(DataSpec(name="hf:me/one")))
    check_local_data(on(DataSpec(name="hf:me/one")), None)
    with pytest.raises(SpecError, match=r"^fanout.targets.1.data.name: 'hf:a/b/c' is not allowed; allowed: hf:owner/name or "):
        check_spec(on(DataSpec(name="hf:a/b/c")))
    with pytest.raises(SpecError, match=r"^fanout.targets.1.data.name: 'parket' is not known; did you mean 'parquet'"):
        check_spec(on(DataSpec(name="parket")))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("size", 0, ">= 1"),
        ("test_share", 1.0, ">= 0 and < 1"),
        ("test_share", -0.1, ">= 0 and < 1"),
        ("test_seed", -1, ">= 0"),
        ("label", 3, "str"),
    ],
)
def test_fields_that_cannot_be_are_one_line(field: str, value: Any, allowed: str):
    with pytest.raises(SpecError, match=rf"^{field}: {value} is not allowed; allowed: .*{allowed}[^\n]*$"):
        DataSpec(name="digits", **{field: value})


def test_the_new_fields_keep_the_fingerprints_of_old_specs():
    """The value is that of commit 6b0a44d, before they were there."""
    assert fingerprint(DataSpec(name="digits", train_limit=512, test_limit=128)) == "ace0b705ac9f"
    changes = {"label": "kind", "image": "photo", "size": 8, "test_share": 0.1, "test_seed": 1}
    found = {fingerprint(override(DataSpec(name="digits"), {field: value})) for field, value in changes.items()}
    assert len(found) == 5 and fingerprint(DataSpec(name="digits")) not in found
