"""The masks of a target and of its controls as they lie in the store, the arms made of them, and what these start from."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autosparse.flows.recipes import demo, smoke
from autosparse.flows.target_fanout import cut_of
from autosparse.models.arms.arm import Arm
from autosparse.models.arms.controls import CONTROLS
from autosparse.models.arms.plan import planned
from autosparse.models.criteria.registry import CRITERIA
from autosparse.models.errors import DataError
from autosparse.models.masks import mask as masks
from autosparse.models.masks.allocation import global_topk
from autosparse.models.masks.gates import effective_density
from autosparse.models.masks.mask import Mask
from autosparse.models.methods.names import family
from autosparse.models.networks.build import build_network
from autosparse.models.networks.flops import forward_macs
from autosparse.models.seeding import generator
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fanout import TargetSpec
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import DataSpec, NetworkSpec
from autosparse.storage.image_datasets import ImageArrays
from autosparse.storage.mask_files import dump_mask, load_mask
from autosparse.storage.open_store import open_store
from autosparse.storage.paths import RunPaths, is_arm, method_key
from autosparse.storage.store import Store
from autosparse.tasks.results.arm_reports import step_of
from autosparse.tasks.retrain_arm import Origin
from autosparse.tasks.worker.problem import ImageProblem, initial_network, open_problem
from autosparse.tasks.worker.retrain_arm import ArmInputs, starting_network
from autosparse.tasks.worker.score_target import Scoring, ScoringInputs, elsewhere
from tests.worker_jobs import job_on

SHAPE = (1, 8, 8)
DENSITIES = (0.2, 0.05)
NETWORK, DATA = NetworkSpec(name="resnet8", width=4), DataSpec(name="digits")


def scored(store: Store, method: str, **changes: Any) -> tuple[Scoring, dict[str, Any]]:
    """A report as the worker makes it, of a tiny network on drawn images."""
    given = {
        "seed": 3,
        "method": method,
        "densities": DENSITIES,
        "min_per_layer": 0,
        "repair": False,
        "step": f"s/{method_key(method)}",
    } | changes
    beside = {
        "target": TargetSpec(network=NETWORK),
        "data": DATA,
        "train": smoke().fanout.train,
        "controls": tuple(CONTROLS),
        "scorer": None,
    }
    inputs: Any = ScoringInputs(**beside, **given)
    network = build_network(NETWORK, image_shape=SHAPE, num_classes=4, seed=3)
    stream = generator(0, "test")
    batches = [(torch.rand(40, *SHAPE, generator=stream), torch.randint(4, (40,), generator=stream)) for _ in range(2)]
    scoring = Scoring(job_on(store), inputs, network, CRITERIA[family(method)], batches, SHAPE)
    scores = scoring.scores(batches)
    cuts = scoring.cuts(scores)
    return scoring, {"cuts": cuts, "controls": {control: scoring.control_cuts(control, scores, cuts) for control in CONTROLS}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def read(store: Store, cut: dict[str, Any]) -> Mask:
    return load_mask(store.read(cut["mask"]))


def test_masks_of_controls_lie_beside_those_of_the_method(store: Store) -> None:
    scoring, report = scored(store, "snip")
    for density in ("0.2", "0.05"):
        own = read(store, report["cuts"][density])
        made = {name: read(store, cuts[density]) for name, cuts in report["controls"].items()}
        assert {masks.kept(mask) for mask in made.values()} == {masks.kept(own)}
        assert masks.layer_densities(made["shuffle"]) == masks.layer_densities(own)
        assert masks.overlap(made["invert"], own) == 0
        assert masks.checksum(made["reinit"]) == masks.checksum(own)
        assert len({masks.checksum(mask) for name, mask in made.items() if name != "reinit"} | {masks.checksum(own)}) == 5
        for mask, cut in ((own, report["cuts"][density]), (made["shuffle"], report["controls"]["shuffle"][density])):
            assert cut["effective_density"] == effective_density(scoring.network, mask, SHAPE) and cut["exact"]
            assert (cut["checksum"], cut["collapsed"]) == (masks.checksum(mask), masks.collapsed_layers(mask))
    keys = [cut["mask"] for cuts in (report["cuts"], *report["controls"].values()) for cut in cuts.values()]
    assert len(set(keys)) == len(keys) - 2 * len(DENSITIES)  # reinit and rescale have the method's own masks
    assert set(keys) == set(store.list("s"))


def test_the_methods_own_masks_are_those_without_controls(store: Store) -> None:
    scoring, report = scored(store, "snip")
    scores = CRITERIA["snip"].score(scoring.network, scoring.batches, generator(3, "criterion", "snip"), density=0.05)
    expected = global_topk(scores, 0.05)
    assert report["cuts"]["0.05"]["checksum"] == masks.checksum(expected)


def test_what_a_method_draws_is_the_same_under_spoiled_data(store: Store) -> None:
    _, report = scored(store, "random")
    for control in ("random_labels", "random_pixels"):
        assert all(report["controls"][control][density]["checksum"] == cut["checksum"] for density, cut in report["cuts"].items())


def test_repair_mends_what_is_cut_from_scores_and_a_shuffle_undoes_it(store: Store) -> None:
    before, after = (scored(store, "random", densities=(0.02,), repair=repair, step=f"s/{repair}")[1] for repair in (False, True))
    plain, mended = before["cuts"]["0.02"], after["cuts"]["0.02"]
    assert plain["kept"] == mended["kept"]
    assert "repair" not in plain and mended["repair"]["replaced"] > 0
    assert mended["effective_density"] == mended["density"] > plain["effective_density"]
    assert after["controls"]["invert"]["0.02"]["effective_density"] == mended["density"]
    shuffled = after["controls"]["shuffle"]["0.02"]
    assert shuffled["layer_densities"] == mended["layer_densities"]
    assert shuffled["effective_density"] < mended["effective_density"]


def snip_of(spec: ExperimentSpec) -> list[Arm]:
    """The arms of snip on the first target and seed."""
    target, seed = spec.fanout.targets[0].label, spec.fanout.seeds[0]
    return [arm for arm in planned(spec) if (arm.target, arm.seed, arm.method) == (target, seed, "snip")]


def test_every_arm_has_a_key_a_name_and_a_mask_of_its_own(store: Store) -> None:
    _, report = scored(store, "snip")
    spec = override(demo(), {"fanout.densities": list(DENSITIES), "fanout.controls": list(CONTROLS), "fanout.seeds": [3]})
    run: Any = SimpleNamespace(spec=spec, paths=RunPaths("first"))
    arms = snip_of(spec)
    origins = [cut_of(run, arm, report) for arm in arms]
    assert [arm.control for arm in arms] == [None, *CONTROLS, None, *CONTROLS]
    assert [arm.name for arm in arms[:3]] == ["snip", "snip+shuffle", "snip+reinit"]
    assert arms[1].title == "resnet8-w16 snip+shuffle 0.2 seed 3"
    assert origins[3].mask == origins[2].mask == origins[0].mask != origins[1].mask
    assert origins[1].effective_density == report["controls"]["shuffle"]["0.2"]["effective_density"]
    keys = [step_of(run.paths, arm) for arm in arms]
    assert len(set(keys)) == len(arms)
    assert keys[:2] == [f"runs/first/fanout/resnet8-w16/seed3/snip/density-0.2{end}" for end in ("", "-shuffle")]
    assert all(is_arm(key) for key in keys)  # by which progress and `show` know an arm


def test_an_older_scoring_without_effective_densities_will_do() -> None:
    spec = override(demo(), {"fanout.densities": [0.1]})
    run: Any = SimpleNamespace(spec=spec, paths=RunPaths("first"))
    old = {"cuts": {"0.1": {"mask": "m", "collapsed": ["a"], "density": 0.1}}}  # a report without the new fields
    [arm] = snip_of(spec)
    assert arm.control is None
    assert cut_of(run, arm, old) == Origin(mask="m", collapsed=("a",), kept_density=0.1, effective_density=None, initial=None)
    assert cut_of(run, arm, old | {"initial_digest": "abc"}).initial == "abc"


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [({"fanout.densities": [0.1, 0.3]}, "density 0.3"), ({"fanout.controls": ["shuffle"]}, "density 0.1 of control shuffle")],
)
def test_a_scoring_of_another_spec_is_named_with_what_it_lacks(store: Store, changed: dict[str, Any], wanted: str) -> None:
    spec = override(demo(), {"fanout.densities": [0.1], "fanout.seeds": [3]} | changed)
    run: Any = SimpleNamespace(spec=spec, paths=RunPaths("first"), store=store)
    old = {"cuts": {"0.1": {"mask": "m", "collapsed": [], "density": 0.1}}, "controls": {}}
    first, missing = snip_of(spec)
    assert cut_of(run, first, old).mask == "m"
    with pytest.raises(DataError, match=f"runs/first/fanout/resnet8-w16/seed3/snip: a scoring without {wanted} is not allowed; allowed: "):
        cut_of(run, missing, old)


def test_an_arm_starts_from_its_own_seed_or_as_its_control_has_it(store: Store) -> None:
    pixels, labels = np.zeros((4, *SHAPE), dtype=np.uint8), np.arange(4)
    problem = ImageProblem(ImageArrays(pixels, labels, pixels, labels, ("a", "b", "c", "d"), "digest"), DATA)
    given = {"network": NETWORK, "data": DATA, "train": smoke().fanout.train, "seed": 3, "start_step": 0, "step": "s"}
    given |= {"compact": False, "narrow": None, "initial": None}
    given |= {"control": None, "mask": None, "method": None, "state": None}

    def start(**changes: Any) -> dict[str, torch.Tensor]:
        inputs: Any = ArmInputs(**given | changes)
        return starting_network(job_on(store), inputs, problem).state_dict()

    own = initial_network(NETWORK, problem, 3).state_dict()
    for changes in ({}, {"control": "shuffle"}):
        assert all(torch.equal(tensor, own[name]) for name, tensor in start(**changes).items())
    drawn = masks.prunable(initial_network(NETWORK, problem, 3))
    other = start(control="reinit")
    assert all((other[name] != own[name]).all() for name in drawn)
    assert all(torch.equal(other[name], own[name]) for name in own.keys() - drawn.keys())
    mask = {name: weight.detach().abs() < weight.detach().abs().median() for name, weight in drawn.items()}
    store.write("small.mask", dump_mask(mask))
    scaled = start(control="rescale", mask="small.mask")
    for name in own:
        assert torch.equal(scaled[name], own[name]) == (name not in drawn)
    assert all(torch.equal(scaled[name][~keep], own[name][~keep]) for name, keep in mask.items())


def test_channels_leave_whole_and_their_shuffle_is_as_wide(store: Store) -> None:
    scoring, report = scored(store, "snip(grain=channels)", densities=(0.5,))
    mask, shuffled = read(store, report["cuts"]["0.5"]), read(store, report["controls"]["shuffle"]["0.5"])
    macs = forward_macs(scoring.network, SHAPE)
    left = sum(count * masks.layer_densities(mask)[name] for name, count in macs.items())
    assert 0.4 * sum(macs.values()) < left <= 0.5 * sum(macs.values())
    assert masks.layer_densities(shuffled) == masks.layer_densities(mask)
    assert masks.checksum(shuffled) != masks.checksum(mask)
    rows = mask["stages.2.0.conv1.weight"].flatten(1)
    assert torch.equal(rows.any(1), rows.any(1) & mask["stages.2.0.conv2.weight"].flatten(2).any(2).any(0)), "both sides of a channel"


def test_a_mixed_mask_has_the_density_that_was_asked_for(store: Store) -> None:
    _, report = scored(store, "synflow(grain=mixed)", densities=(0.1,))
    assert report["cuts"]["0.1"]["density"] == pytest.approx(0.1, abs=5e-4)


def test_a_scorer_of_other_data_is_said_to_be_one() -> None:
    digits = open_problem(DataSpec(name="digits", train_limit=20, test_limit=10), None)
    here = {"data": "digits", "metadata": {"data_digest": digits.digest}}
    assert elsewhere(here, digits, None) is None and elsewhere(here, digits, "drift") == "drift"
    other = {"data": "birds", "metadata": {"data_digest": "another"}}
    assert elsewhere(other, digits, None) == "the scorer was fitted on birds, this is digits: by its features this network looks alike"
    assert elsewhere(other, digits, "drift") == "the scorer was fitted on birds, this is digits: drift"
    assert elsewhere({"metadata": {}}, digits, "drift") == "drift", "cards of earlier versions do not say"
