"""What a person types: wrong fields, wrong names, wrong addresses are refused before anything starts, with what was meant."""

import itertools
import json
import os
import string
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.exceptions import ParameterTypeError

from autosparse.flows.autosparse_pipeline import autosparse
from autosparse.flows.recipes import smoke
from autosparse.library.scorer_files import save_scorer
from autosparse.models.errors import AutosparseError, SpecError
from autosparse.models.features import FEATURES_VERSION
from autosparse.models.scorers.registry import build_scorer
from autosparse.models.specs.fields import override, to_plain
from autosparse.storage import paths
from autosparse.storage.addresses import LOCAL, S3, address_kind
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths, arm_key, check_name
from autosparse.tasks.checks.preflight import check_labels
from tests.faults.matrix import fault

Typed = Callable[..., subprocess.CompletedProcess[str]]
TYPOS = {
    "irp.train.epohcs=3": "irp.train.epohcs: 'epohcs' is not known; did you mean 'epochs'?",
    "irp.rouns=3": "irp.rouns: 'rouns' is not known; did you mean 'rounds'?",
    "irp.final_density=1.7": "irp.final_density: 1.7 is not allowed; allowed: > 0 and <= 1",
    "fanout.targets.0.network.name=resnt8": "fanout.targets.0.network.name: 'resnt8' is not known; did you mean 'resnet8'?",
    'fanout.methods=["sinp"]': "fanout.methods[0]: 'sinp' is not known; did you mean 'snip'?",
}


@fault(18, "typos in fields, values and names", "all of them named with path and did-you-mean, a line each; exit 2; nothing written")
def test_validate_names_every_typo_and_writes_nothing(tmp_path: Path, typed: Typed) -> None:
    home = tmp_path / "home"
    done = typed("validate", "--recipe", "smoke", *(part for change in TYPOS for part in ("--set", change)), AUTOSPARSE_HOME=str(home))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == len(TYPOS)
    for message in TYPOS.values():
        assert sum(line.startswith(f"error: {message}") for line in lines) == 1, (message, lines)
    assert not done.stdout and not home.exists()


@fault(18, "a spec without an error", "one line of what would run, exit 0, no server, nothing written")
def test_validate_says_what_would_run(tmp_path: Path, typed: Typed) -> None:
    home = tmp_path / "home"
    unreachable = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = typed("validate", "--recipe", "smoke", "--set", "irp.rounds=3", AUTOSPARSE_HOME=str(home), **unreachable)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run-") and "1 networks x 1 seeds x 3 rounds = 3 trainings" in done.stdout
    assert len(done.stdout.splitlines()) == 1 and not done.stderr
    assert not home.exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("irp.rouns", 3, "irp.rouns"),
        ("irp.train.epohcs", 3, "irp.train.epohcs"),
        ("irp.final_density", 1.7, "final_density: 1.7 is not allowed; allowed: > 0 and <= 1"),
        ("fanout.methods", ["sinp"], "'sinp' is not known; did you mean 'snip'?"),
        ("irp.networks.0.name", "resnt8", "'resnt8' is not known; did you mean 'resnet8'?"),
    ],
)
@fault(18, "the same in the parameter of a deployment run", "refused by the flow before it opens anything, with path and did-you-mean")
def test_a_deployment_refuses_the_parameter(path: str, value: Any, message: str) -> None:
    plain = to_plain(smoke())
    *above, name = path.split(".")
    node: Any = plain
    for key in above:
        node = node[int(key) if isinstance(node, list) else key]
    node[name] = value
    with pytest.raises(SpecError) as refused:
        autosparse.fn(**autosparse.validate_parameters({"spec": plain}))
    assert message in str(refused.value)


def named() -> st.SearchStrategy[str]:
    """Names as an attacker would choose them, and any other text."""
    evil = ("..", "../x", "/etc/x", "a/b", "a\\b", "x" * 300, "a\0b", "a\n", "é", "~", ".hidden", "C:x", "%2e%2e", "a/../../b", "-", "")
    return st.one_of(st.sampled_from(evil), st.text(max_size=80), st.text(string.ascii_lowercase + "./-_\n", max_size=70))


@given(named())
@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@fault(27, "`../..`, absolute, very long and unicode names of runs", "one validator lets through `[a-z0-9][a-z0-9_-]{0,62}` only")
def test_no_run_name_leads_out_of_the_storage(name: str) -> None:
    try:
        run = RunPaths(check_name("name", name))
    except SpecError:
        return
    assert inside(run.root, run.spec, run.training, paths.report(run.data("data")))
    assert len(name) <= 63 and name.isascii() and name == name.lower()


@given(st.dictionaries(st.sampled_from(("irp.networks.0.name", "fanout.targets.0.network.name")), named(), max_size=2), named(), named())
@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@fault(27, "the same in names of networks, methods, controls and data sets", "no key of the run lies outside the storage root")
def test_no_label_leads_out_of_the_storage(changes: dict[str, str], method: str, title: str) -> None:
    run = RunPaths("run")
    for one in ({"fanout.methods": [method], "data.path": f"/data/{title}"}, changes, {"irp.networks.0.name": f"{title}:{method}"}):
        try:
            spec = override(smoke(), one)
            check_labels(spec)
        except SpecError:
            continue
        labels = [network.label for network in spec.irp.networks] + [target.label for target in spec.fanout.targets]
        for label, known in itertools.product(labels, spec.fanout.methods):
            arm = run.arm(label, 0, known, 0.1, "shuffle")
            assert inside(
                run.round(label, 0, 1), run.scores(label, 0, known), arm, run.comparison(label, arm_key(known, None, 0.1, 0), "b", "c")
            )


@given(st.lists(named(), min_size=1, max_size=3).map("/".join))
@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@fault(27, "the same as a key of the storage", "refused: no segment starts with a dot, none is empty")
def test_the_storage_takes_no_key_that_leads_out(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    root = tmp_path_factory.getbasetemp() / "keys"
    store = open_store(str(root))
    try:
        found = store.uri(key)
    except AutosparseError:
        return
    assert os.path.realpath(found).startswith(f"{os.path.realpath(root)}/")


def inside(*keys: str) -> bool:
    """Whether all of them are below the run's folder."""
    store = open_store("/storage")
    return all(os.path.normpath(store.uri(key)).startswith("/storage/runs/") for key in keys)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "x" * 300, "ünïcode"])
@fault(27, "the same on the command line and in a deployment", "refused by the same validator; nothing written")
def test_run_and_deployment_refuse_such_a_name(name: str, clean_settings: Path, typed: Typed) -> None:
    with pytest.raises(ParameterTypeError):
        autosparse.validate_parameters({"name": name})
    done = typed("run", "--recipe", "smoke", "--name", name)
    assert done.returncode == 2 and "error: name: " in done.stderr
    assert not (clean_settings / "storage").exists()


OTHER_SCHEMES = (
    "file:///etc",
    "file:/etc",
    "http://host/x",
    "https://host/x",
    "gs://b/x",
    "runs:/1/x",
    "dbfs:/x",
    "S3://bucket",
    "s3:/b",
    "",
)


@pytest.mark.parametrize("address", OTHER_SCHEMES)
@fault(
    26, "`--scorer`, `--data`, data.path and the storage at file://, http:// and other schemes", "one list refuses them, nothing is opened"
)
def test_one_list_of_addresses(address: str) -> None:
    with pytest.raises(SpecError, match=r"^field: .* is not allowed; allowed: a local folder, s3://bucket/prefix$"):
        address_kind("field", address, LOCAL, S3)
    with pytest.raises(SpecError, match=r"^storage: "):
        open_store(address)


@fault(26, "`prune --scorer file:///etc`, `--data http://...`", "exit 2, one line, no mask")
def test_prune_refuses_other_schemes(tmp_path: Path, typed: Typed) -> None:
    out = tmp_path / "mask.safetensors"
    save_scorer(open_store(str(tmp_path)), "fitted", build_scorer("mlp", hidden=(4,), seed=0), {"features_version": FEATURES_VERSION})
    wrong = (("file:///etc", "digits", "--scorer"), ("http://127.0.0.1:9/x", "digits", "--scorer"))
    for scorer, data, field in (*wrong, (str(tmp_path / "fitted"), "http://127.0.0.1:9/x", "--data")):
        done = typed("prune", "m:f", "--scorer", scorer, "--density", ".1", "--data", data, "--out", str(out))
        assert done.returncode == 2, json.dumps(done.stderr)
        assert done.stderr.startswith(f"error: {field}: ") and len(done.stderr.splitlines()) == 1
    assert not out.exists()
