"""Arms by name: what a text stands for, and every refusal in one line that says what there is."""

from dataclasses import replace
from typing import Any

import pytest

from autosparse.flows.recipes import smoke
from autosparse.flows.rerun import rerun_command
from autosparse.models.arms.arm import Arm
from autosparse.models.arms.names import find_pairs, spec_pairs
from autosparse.models.arms.plan import planned
from autosparse.models.errors import SpecError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec, ValleySpec
from autosparse.models.specs.fields import fingerprint, from_plain, override, to_plain
from autosparse.models.specs.run_specs import NetworkSpec
from autosparse.storage.paths import RunPaths, arm_key
from autosparse.tasks.checks.preflight import check_spec
from autosparse.tasks.results.arm_reports import step_of
from autosparse.tasks.results.comparisons import comparisons

LENET, RESNET = "lenet300-100", "resnet8-w4"
GRDA = "grda(c=0.02,mu=0.8)"


def spec(**changes: Any) -> ExperimentSpec:
    """Two targets: snip, the scorer and one level of grda at densities .1 and .02 on the first, fw_rnn on the second."""
    base = smoke()
    own = TargetSpec(network=NetworkSpec(name="resnet8", width=4), methods=("random",))
    fanout = replace(
        base.fanout,
        targets=(*base.fanout.targets, own),
        methods=("snip", "scorer", GRDA),
        densities=(0.1, 0.02),
        seeds=(10, 11),
        ticket=True,
        controls=("shuffle", "reinit", "rescale"),
    )
    return override(replace(base, fanout=fanout), changes)


def test_every_arm_of_the_fan_out_is_there_once_and_has_its_own_key() -> None:
    arms = planned(spec())
    assert len(arms) == len(set(arms))
    run = RunPaths("first")
    assert len({step_of(run, arm) for arm in arms}) == len(arms)
    assert len({(arm.target, arm_key(arm.method, arm.control, arm.density, arm.seed)) for arm in arms}) == len(arms)


@pytest.mark.parametrize("arm", planned(spec()), ids=lambda arm: arm.text)
def test_the_text_of_an_arm_names_it_and_no_other(arm: Arm) -> None:
    other = Arm(target=arm.target, method="dense", density=1.0, seed=10)
    if arm == other:
        other = Arm(target=arm.target, method="dense", density=1.0, seed=11)
    assert find_pairs(spec(), arm.text, other.text) == [(arm, other)]


def test_what_is_left_out_is_found_where_there_is_one_choice() -> None:
    [(first, second)] = find_pairs(spec(), "dense", "grda(mu=0.8, c=.02)")
    assert (first.text, second.text) == (f"{LENET}/dense#10", f"{LENET}/{GRDA}#10")
    assert find_pairs(spec(), "dense", "autos@2e-2", seed=11)[0][1].text == f"{LENET}/scorer@0.02#11"
    assert find_pairs(spec(), "dense", "snip+shuffle@0.1#11")[0][1].short == "snip+shuffle@0.1"
    assert find_pairs(spec(), "dense", "ticket")[0][1].text == f"{LENET}/ticket@0.1#0"


def test_a_pair_stands_for_every_target_that_has_both() -> None:
    two = spec(**{"fanout.targets.1.methods": ["snip"]})
    assert [first.target for first, _ in find_pairs(two, "dense", "snip@0.1")] == [LENET, RESNET]
    assert [first.target for first, _ in find_pairs(two, "dense", f"{RESNET}/snip@0.1")] == [RESNET]


def test_the_same_start_is_the_same_seed_and_the_same_draw() -> None:
    arms = {arm.text: arm for arm in planned(spec())}
    dense = arms[f"{LENET}/dense#10"]
    assert dense.start == arms[f"{LENET}/{GRDA}#10"].start == arms[f"{LENET}/snip+shuffle@0.1#10"].start
    others = [dense, *(arms[f"{LENET}/{name}"] for name in ("dense#11", "snip+reinit@0.1#10", "ticket@0.1#0"))]
    others += [arms[f"{LENET}/snip+rescale@{density}#10"] for density in ("0.1", "0.02")]
    assert len({arm.start for arm in others}) == len(others)
    assert arms[f"{LENET}/snip+reinit@0.1#10"].start == arms[f"{LENET}/snip+reinit@0.02#10"].start


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("dense", "sinp@0.1", "second: 'sinp@0.1' is not known; did you mean 'snip@0.1'?"),
        ("dense", "magnitude@0.1", "second: 'magnitude@0.1' is not known"),
        ("dense", "snip@0.3", "second: 'snip@0.3' is not known"),
        ("dense", "snip", "second: 'snip' is not allowed; allowed: one of snip@0.1, snip@0.02"),
        ("dense", "snip+invert@0.1", "second: 'snip+invert@0.1' is not known"),
        ("dense", f"{GRDA}@0.1", "is not known"),
        ("dense", "grda(c=0.02,mu=0.9)", "is not known; did you mean 'grda(c=0.02,mu=0.8)'?"),
        ("dense", "grda(cc=0.02)", "second.grda"),
        ("dense", "snip@0.1#7", "second: 'snip@0.1#7 of seed 7' is not allowed; allowed: seeds 10, 11"),
        ("dense", "snip@0.1.1", "second: 'snip@0.1.1' is not allowed; allowed: [TARGET/]METHOD"),
        ("dense", "snip@.", "second: 'snip@.' is not allowed; allowed: [TARGET/]METHOD"),
        ("de nse", "snip@0.1", "first: 'de nse' is not allowed; allowed: [TARGET/]METHOD"),
        ("dense", "dense", "second: 'dense' is not allowed; allowed: another arm than the first"),
        ("snip@0.1", "random@0.1", f"'random@0.1' on {RESNET} and 'snip@0.1' on {LENET} are two different networks"),
        (f"{RESNET}/dense", f"{LENET}/dense", "are two different networks; allowed: two arms of one target"),
        ("dense", "nowhere/snip@0.1", "second: 'nowhere/snip@0.1' is not known"),
    ],
)
def test_refusals_are_one_line(first: str, second: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        find_pairs(spec(), first, second)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_pairs_of_a_spec_are_checked_before_anything_starts() -> None:
    good = spec(**{"valley.pairs": [["dense", GRDA], ["dense", "scorer@0.02"]], "valley.seed": 11})
    check_spec(good)
    assert [second.text for _, second in spec_pairs(good)] == [f"{LENET}/{GRDA}#11", f"{LENET}/scorer@0.02#11"]
    with pytest.raises(SpecError, match=r"valley.pairs.1.0: 'dnse' is not known"):
        check_spec(spec(**{"valley.pairs": [["dense", GRDA], ["dnse", GRDA]]}))
    with pytest.raises(SpecError, match=r"valley.pairs.0: \['dense'\] is not allowed; allowed: two arms"):
        check_spec(spec(**{"valley.pairs": [["dense"]]}))


@pytest.mark.parametrize(
    ("field", "value"), [("probes", ["curv"]), ("size", 1), ("points", 1), ("k", 1), ("iterations", 4), ("images", 1), ("momentum", 1.0)]
)
def test_bad_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"valley.{field}"):
        spec(**{f"valley.{field}": value})


def test_no_pairs_change_nothing() -> None:
    plain = to_plain(smoke())
    assert plain.pop("valley")["pairs"] == []
    assert from_plain(ExperimentSpec, plain) == smoke()  # as it was stored before there were valleys
    assert fingerprint(replace(smoke(), valley=ValleySpec(pairs=(("dense", "snip"),)))) != fingerprint(smoke())
    assert "valley" not in rerun_command(smoke(), "first")


def test_the_key_of_a_comparison_depends_on_its_settings_not_on_the_other_pairs() -> None:
    base = {"valley.pairs": [["dense", "snip@0.1"]]}
    run = RunPaths("first")
    [one] = comparisons(spec(**base))
    [same, _] = comparisons(spec(**{"valley.pairs": [["dense", "snip@0.1"], ["dense", GRDA]]}))
    [other] = comparisons(spec(**base, **{"valley.size": 5}))
    assert one.key(run) == same.key(run) != other.key(run)
    assert one.key(run).startswith(f"runs/first/valley/{LENET}/dense-1-seed10--snip-0.1-seed10-")
