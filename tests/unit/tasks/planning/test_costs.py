"""What steps cost, worked out by hand, and how they fill a machine."""

import pytest

from autosparse.flows.recipes import demo, smoke
from autosparse.models.errors import CapacityError
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.models.specs.fields import override
from autosparse.models.specs.run_specs import JobSpec
from autosparse.storage.paths import RunPaths
from autosparse.tasks.checks.disk_room import bytes_of
from autosparse.tasks.planning import steps as kinds
from autosparse.tasks.planning.costs import FIXED_S, SERIES, START, TORCH_S, Cost, Examples, Pace, Rates, cost_of
from autosparse.tasks.planning.plan import RunPlan, costed
from autosparse.tasks.planning.probe import probed
from autosparse.tasks.planning.schedule import Place, makespan, wall_seconds
from autosparse.tasks.planning.steps import PlannedStep, steps_of
from autosparse.tasks.planning.words import counted, sized

RUN = RunPaths("made")
LENET = 64 * 300 + 300 * 100 + 100 * 10  # weights of LeNet-300-100 on images of 8 x 8


def rates(spec: ExperimentSpec, step_s: float = 0.1, **more: object) -> Rates:
    (network,) = spec.irp.networks
    pace = Pace.of(network, spec.data, spec.irp.train, spec.irp.job)
    known = {"rows": {network.label: LENET}, "row": 1e-6, "passes": {network.label: 0.01}} | more
    return Rates(steps={pace: step_s}, examples={spec.data: Examples(512, 128)}, **known)  # type: ignore[arg-type]


def costs(spec: ExperimentSpec, known: Rates) -> dict[str, list[Cost]]:
    found: dict[str, list[Cost]] = {}
    for step in steps_of(spec, RUN):
        found.setdefault(step.kind, []).append(cost_of(step, spec, known))
    return found


def test_the_steps_of_the_smallest_recipe_by_hand() -> None:
    keys = [step.key.removeprefix("runs/made/") for step in steps_of(smoke(), RUN)]
    lenet = "lenet300-100"
    assert keys == [
        *("data/data", f"irp/{lenet}-seed0/round-000", f"irp/{lenet}-seed0/round-001", "features", "scorer", "scorer/registration"),
        *(f"fanout/{lenet}/seed10/snip", f"fanout/{lenet}/seed10/scorer", f"fanout/{lenet}/seed10/dense/density-1"),
        *(f"fanout/{lenet}/seed10/snip/density-0.1", f"fanout/{lenet}/seed10/scorer/density-0.1", "summary"),
    ]


def test_without_sources_a_run_begins_at_the_fan_out() -> None:
    spec = override(smoke(), {"irp.seeds": [], "fanout.methods": ["snip"]})
    steps = steps_of(spec, RUN)
    assert [step.key.removeprefix("runs/made/") for step in steps] == [
        *("data/data", "fanout/lenet300-100/seed10/snip", "fanout/lenet300-100/seed10/dense/density-1"),
        *("fanout/lenet300-100/seed10/snip/density-0.1", "summary"),
    ]
    (target,) = spec.fanout.targets
    pace = Pace.of(target.network, spec.data, spec.fanout.train, spec.fanout.job)
    known = Rates(
        steps={pace: 0.1},
        examples={spec.data: Examples(512, 128)},
        fixed={**dict.fromkeys(kinds.KINDS, 1.0), START: 10.0, SERIES: 5.0},
        scorings={(target.network.label, "snip"): 2.0},
    )
    # two arms of 4 steps and two looks of a third of one, .1 s each; a second beside each of the five steps
    wall = wall_seconds(costed(spec, RUN, known), Place(cpus=1, gpus=0), known)
    assert wall == pytest.approx(10 + 5 + 2 + 2 * 0.1 * (4 + 2 / 3) + 5)
    assert bytes_of(spec) == (1 + 2) * 4 * LENET + 2 * 4 * (300 + 100 + 10)  # a scoring; two arms, with biases
    assert probed(spec).scorer is None and probed(smoke()).scorer == smoke().scorer


def test_data_of_a_target_has_a_step_of_its_own() -> None:
    spec = override(smoke(), {"fanout.targets.0.data": {"name": "digits", "train_limit": 256}})
    assert [step.key for step in steps_of(spec, RUN) if step.kind == kinds.DATA] == [
        "runs/made/data/data",
        "runs/made/data/fanout-targets-0-data",
    ]


def test_a_training_costs_its_steps_and_its_looks_at_the_test_examples() -> None:
    # smoke: 512 training and 128 test images, batches of 128, one epoch: 4 steps and a third of one for the look, of .1 s each
    found = costs(smoke(), rates(smoke()))
    assert [cost.examples for cost in found[kinds.ROUND]] == [512, 512]
    assert [cost.work for cost in found[kinds.ROUND]] == [pytest.approx(0.1 * (4 + 1 / 3))] * 2
    assert [cost.work for cost in found[kinds.ARM]] == [pytest.approx(0.1 * (4 + 2 / 3))] * 3  # and once more as it is used
    assert found[kinds.ARM][0].beside == FIXED_S[kinds.ARM]


def test_three_epochs_looked_at_twice_and_a_late_rewind() -> None:
    changes = {"irp.train.epochs": 3, "irp.train.evaluate_every": 2, "irp.rewind_step": 3}
    first, second = costs(spec := override(smoke(), changes), rates(spec))[kinds.ROUND]
    assert (first.examples, second.examples) == (3 * 512, 3 * 512 - 3 * 128)
    assert first.work == pytest.approx(0.1 * (12 + 2 / 3)) and second.work == pytest.approx(0.1 * (9 + 2 / 3))


def test_what_comes_between_rounds_and_arms() -> None:
    spec = override(smoke(), {"scorer.holdout_layers": 0.5, "scorer.epochs": 8})
    found = costs(spec, rates(spec))
    (features,), (fit,), (snip, scorer) = (found[kind] for kind in (kinds.FEATURES, kinds.FIT, kinds.SCORING))
    assert features.work == pytest.approx(0.1 + LENET * 2e-6)  # one scoring batch, as large as a training's
    assert fit.work == pytest.approx(LENET / 2 * (8 + 2) * 1e-6)
    assert snip.work == pytest.approx(0.1 + 4 * 0.01)  # and the facts of one mask
    assert scorer.work == pytest.approx(0.1 + (300 + 4) * 0.01)


def test_looking_ahead_is_a_share_of_a_training() -> None:
    spec = override(smoke(), {"fanout.methods": ["growth"], "scoring.lookahead_steps": 7})
    assert costs(spec, rates(spec))[kinds.SCORING][0].work == pytest.approx(0.7 + 4 * 0.01)


def test_methods_that_train_otherwise_are_guessed_and_said() -> None:
    spec = override(smoke(), {"fanout.methods": ["fwdgrad", "rigl"], "fanout.dense": False})
    forward, rigl = costs(spec, rates(spec))[kinds.ARM]
    assert forward.work == pytest.approx(0.1 * (2.4 * (4 + 1 / 3) + 1 / 3)) and forward.guess == "fwdgrad: 2.4 times a plain step"
    assert rigl.work == pytest.approx(0.1 * (4 + 2 / 3)) and rigl.guess == "rigl: 1 times a plain step"
    known = rates(spec, methods={("lenet300-100", "fwdgrad"): 3.0})
    measured = costs(spec, known)[kinds.ARM][0]
    assert measured.work == pytest.approx(0.1 * (3 * (4 + 1 / 3) + 1 / 3)) and not measured.guess


def test_what_nobody_has_timed_is_not_known() -> None:
    known = costs(smoke(), Rates(examples={smoke().data: Examples(512, 128)}))[kinds.ROUND][0]
    assert (known.examples, known.seconds) == (512, None)
    assert costs(smoke(), Rates())[kinds.ROUND][0] == Cost(None, None, FIXED_S[kinds.ROUND])


def test_work_fills_slots_in_its_order() -> None:
    assert makespan([3, 1, 1, 1], 2) == 3 and makespan([1, 1, 1, 3], 2) == 4 and makespan([2, 2], 5) == 2 and makespan([], 3) == 0


def test_the_clock_by_hand() -> None:
    job = JobSpec()
    rounds = [PlannedStep(kind=kinds.ROUND, key=f"r{seed}{n}", title="", job=job, seed=seed) for seed in (0, 1) for n in (0, 1)]
    arms = [PlannedStep(kind=kinds.ARM, key=f"a{n}", title="", job=job) for n in range(3)]
    work = [(step, Cost(0, 10.0, 8.0)) for step in rounds] + [(step, Cost(0, 5.0, 1.0)) for step in arms]
    known = Rates(fixed={START: 30.0, SERIES: 7.0})
    # 4 CPUs: two sources side by side, 2 rounds of 18 s each; three arms at once, whose jobs start on 4/3 CPUs each: 7 x 1.5 s
    assert wall_seconds(work, Place(cpus=4, gpus=0), known) == pytest.approx(30 + 36 + 7 + 6)
    # 2 CPUs: the starts of two rounds take twice as long; arms come in two turns
    assert wall_seconds(work, Place(cpus=2, gpus=0), known) == pytest.approx(30 + 2 * (10 + 16) + 7 + 12)
    slow = Rates(slowness=2.0)
    assert wall_seconds(work[:1], Place(cpus=2, gpus=0), slow) == pytest.approx(2 * FIXED_S[START] + 18)
    assert wall_seconds([], Place(cpus=2, gpus=0), known) == 0
    assert wall_seconds([(arms[0], Cost(0, None, 1.0))], Place(cpus=2, gpus=0), known) is None
    with pytest.raises(CapacityError, match=r"^job.cpus_per_worker: "):
        wall_seconds(
            [(PlannedStep(kind=kinds.ARM, key="a", title="", job=JobSpec(cpus_per_worker=3)), Cost(0, 1.0))], Place(cpus=2, gpus=0), known
        )


def test_sums_of_what_is_left() -> None:
    spec = smoke()
    known = rates(spec, fixed=dict.fromkeys((*kinds.KINDS, START, SERIES), 0.0))
    steps = costed(spec, RUN, known)
    rounds = [step.key for step, _ in steps if step.kind in (kinds.DATA, kinds.ROUND)]
    whole, rest = (
        RunPlan(
            name="made", spec=spec, steps=steps, done=frozenset(done), place=Place(cpus=1, gpus=0), rates=known, known_from=(), price=36.0
        )
        for done in ((), rounds)
    )
    assert (whole.trainings, whole.examples) == (5, 5 * 512) and (rest.trainings, rest.examples) == (3, 3 * 512)
    seconds = sum(cost.seconds or 0.0 for _, cost in whole.to_do)  # one CPU: all in turn
    assert whole.seconds == pytest.approx(seconds) and whole.hours_of("cpus") == pytest.approx(seconds / 3600)
    assert whole.whole_price == pytest.approx(seconds / 100) and whole.hours_of("gpus") == 0
    assert whole.bytes["round"] == 2 * 4 * (LENET + 410) and whole.bytes["to_do"] == bytes_of(spec)
    assert rest.bytes["to_do"] == bytes_of(spec) - whole.bytes["round"]
    plain = rest.to_plain()
    assert set(plain) == {
        *("name", "fingerprint", "place", "steps", "done", "to_do", "trainings", "examples", "seconds", "cpu_hours", "gpu_hours"),
        *("bytes", "price", "known_from", "guesses"),
    }
    assert (plain["done"], plain["to_do"]) == (3, 9)
    assert [(step["kind"], step["done"], step["reason"]) for step in plain["steps"]][2:4] == [
        ("round", True, "report there"),
        ("features", False, "no report"),
    ]
    assert "| round | 2 | 0 |" in rest.markdown() and "3 of 5 trainings to do" in rest.markdown()


def test_every_recipe_has_a_plan() -> None:
    assert len(steps_of(demo(), RUN)) == 1 + 6 + 1 + 1 + 1 + 4 * 2 + 26 + 1
    assert TORCH_S > 0


def test_words() -> None:
    assert [counted(number) for number in (0, 512, 36_800, 1.2e6, 3e9)] == ["0", "512", "36.8 k", "1.2 M", "3 G"]
    assert [sized(count) for count in (0, 1_390_000)] == ["0 B", "1.39 MB"]
