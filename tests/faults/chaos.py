"""Kill anywhere: `make chaos`. A small run again and again; processes of it are killed at random moments; it must end all the same.

All services are real and outlive the runs: Prefect, MLflow and Ray of `autosparse up`, storage on a real S3 server. What is killed
gets SIGKILL and is started again, and the same command has to end with the bits of the undisturbed run. Several stages, each with
services and a storage of its own, can work beside each other; on two cores that is no faster than one.
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.faults.chaos_stage import VICTIMS, Stage, exit_status
from tests.faults.runs import result

HANG_SECONDS = 400
SPARE_STARTS = 3  # of the same command, the first one among them, beyond one per kill
EPOCH_STEPS = 4  # 512 images in batches of 128
STRUCK = {"Ray head": 2, "flow process": 2}  # how many of the two jobs that train at once a kill strikes, where it is not one


@dataclass(frozen=True)
class Outcome:
    """One disturbed run: `redone` are training steps beyond those of the undisturbed run, `seconds` from the first start to the end."""

    kills: list[str]
    after: list[float]
    starts: int
    redone: int
    seconds: float
    same: bool


def disturbed(stage: Stage, name: str, victims: list[str], length: float, expected: dict, steps: int, chance: random.Random) -> Outcome:
    """Kill each of `victims` at a random moment of the run, restart it, and give the command until it ends well."""
    begin, steps_before = time.monotonic(), stage.steps_done()
    run, starts, kills, after = stage.start_run(name), 1, [], []
    most_starts = len(victims) + SPARE_STARTS
    moments = sorted(chance.uniform(1, length) for _ in victims)
    for victim, moment in zip(victims, moments, strict=True):
        struck = False
        while not struck and run.poll() != 0 and starts < most_starts and time.monotonic() < begin + moment + HANG_SECONDS:
            if run.poll():  # of the kill before
                run, starts = stage.start_run(name), starts + 1
            elif time.monotonic() >= begin + moment:
                struck = stage.kill(victim, run, chance)  # not so where Ray has no worker at this moment
            time.sleep(0 if struck else 0.1)
        if struck:
            kills.append(victim)
            after.append(round(time.monotonic() - begin, 1))
            stage.restart(victim)
    status = exit_status(run, HANG_SECONDS)
    while status != 0 and starts < most_starts:
        starts += 1
        status = exit_status(stage.start_run(name), HANG_SECONDS)
    same = status == 0 and result(stage.storage, name) == expected
    return Outcome(kills, after, starts, stage.steps_done() - steps_before - steps, round(time.monotonic() - begin, 1), same)


def chaos(number: int, *, home: Path, kills: int, per_run: int, minutes: float, seed: int) -> tuple[float, list[Outcome]]:
    """So many kills on stage `number`, as many as fit into the minutes; prints each run. Seconds of the undisturbed one, and outcomes."""
    home, chance, outcomes = home / str(number), random.Random(seed + number), []
    home.mkdir()
    begin, stage = time.monotonic(), Stage(home)
    with stage.open():
        undisturbed, status = time.monotonic(), exit_status(stage.start_run("undisturbed"), HANG_SECONDS)
        assert status == 0, (home / "undisturbed.log").read_text()[-2000:]
        length, steps = time.monotonic() - undisturbed, stage.steps_done()
        expected = result(stage.storage, "undisturbed")
        print(f"stage {number}, undisturbed: {length:.0f} s, {steps} steps", flush=True)
        order: list[str] = []
        while sum(len(one.kills) for one in outcomes) < kills and time.monotonic() - begin < minutes * 60 - length:
            while len(order) < per_run:
                order = [*chance.sample(VICTIMS, len(VICTIMS)), *order]  # each as often as the others
            victims = [order.pop() for _ in range(per_run)]
            name = f"chaos-{len(outcomes):03d}"
            outcomes.append(disturbed(stage, name, victims, length, expected, steps, chance))
            if not outcomes[-1].same:
                print((home / f"{name}.log").read_text()[-3000:], flush=True)
            stage.drop(name)
            print(json.dumps(asdict(outcomes[-1])), flush=True)
    return length, outcomes


def summary(length: float, outcomes: list[Outcome]) -> None:
    """What a person wants to know of it; `length` in seconds of an undisturbed run."""
    kills = Counter(victim for one in outcomes for victim in one.kills)
    redone, over = [one.redone for one in outcomes], [one.seconds - length for one in outcomes]
    print(f"kills {kills.total()} in {len(outcomes)} runs: {dict(kills)}")
    print(f"commands given again {sum(one.starts - 1 for one in outcomes)}, mismatches {sum(not one.same for one in outcomes)}")
    print(f"training steps redone: {sum(redone) / kills.total():.1f} per kill, at most {max(redone)} in a run; an epoch has {EPOCH_STEPS}")
    print(f"seconds beyond the undisturbed {length:.0f}, restarts included: {sum(over) / kills.total():.0f} per kill")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=26)
    parser.add_argument("--per-run", type=int, default=3, help="kills in one run, at moments of their own")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--stages", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ProcessPoolExecutor(options.stages) as pool:
        fixed = {"home": Path(folder), "kills": -(-options.kills // options.stages), "per_run": options.per_run}
        one_stage = partial(chaos, **fixed, minutes=options.minutes, seed=options.seed)
        stages = list(pool.map(one_stage, range(options.stages)))
    outcomes = [outcome for _, found in stages for outcome in found]
    summary(sum(length for length, _ in stages) / len(stages), outcomes)
    raise SystemExit(any(not one.same or one.redone > allowed_steps(one.kills) for one in outcomes))


def allowed_steps(kills: list[str]) -> int:
    """Training steps that these kills may cost: an epoch of each job that they strike."""
    return EPOCH_STEPS * sum(STRUCK.get(victim, 1) for victim in kills)


if __name__ == "__main__":
    main()
