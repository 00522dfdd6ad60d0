"""How many jobs at once a run takes of a Ray that it shares, and whether a job fits into nodes that may come and go."""

import asyncio
import threading
import time

import pytest

from autosparse.models.errors import CapacityError, SpecError
from autosparse.models.specs.run_specs import JobSpec
from autosparse.tasks.cluster import growth
from autosparse.tasks.cluster.capacity import fair_share, has_room, slots_of
from autosparse.tasks.cluster.orders import Orders
from autosparse.tasks.cluster.sharing import Turns
from autosparse.tasks.limits import DEFAULTS, GROW, LEASE, RUNS, START, limit
from tests.pipeline.command_line import wait_for

JOB = JobSpec(workers=2, cpus_per_worker=2)
GPU = JobSpec(workers=1, cpus_per_worker=1, gpus_per_worker=0.5)


@pytest.mark.parametrize(
    ("slots", "runs", "share"), [(8, 1, 8), (8, 2, 4), (8, 3, 3), (8, 8, 1), (2, 3, 1), (1, 4, 1), (0, 2, 1), (4, 0, 4)]
)
def test_a_share_is_the_part_rounded_up_and_never_none(slots: int, runs: int, share: int) -> None:
    assert fair_share(slots, runs) == share


def test_no_worker_spans_two_nodes() -> None:
    assert has_room(JOB, [{"CPU": 4}]) and has_room(JOB, [{"CPU": 2}, {"CPU": 3}])
    assert not has_room(JOB, [{"CPU": 3}, {"CPU": 1}])  # 4 CPUs, one place
    assert not has_room(JOB, [])
    assert has_room(GPU, [{"CPU": 0}, {"CPU": 1, "GPU": 1}]) and not has_room(GPU, [{"CPU": 8}, {"GPU": 1}])
    assert (slots_of(JOB, 9, 0), slots_of(GPU, 8, 2)) == (2, 4)


def test_turns_follow_the_number_of_runs() -> None:
    turns, runs, inside, leave = Turns(), [2], threading.Semaphore(0), threading.Event()
    state = {"inside": 0, "most": 0}
    lock = threading.Lock()

    def work() -> None:
        with turns.turn(lambda: 4, lambda: runs[0], lambda: None):
            with lock:
                state["inside"] += 1
                state["most"] = max(state["most"], state["inside"])
            inside.release()
            leave.wait(30)
            with lock:
                state["inside"] -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_for(lambda: state["inside"] == 2, 10)
    time.sleep(1.2)  # longer than a look
    assert state["inside"] == 2
    runs[0] = 1  # the other one has gone
    wait_for(lambda: state["inside"] == 4, 10)
    leave.set()
    for thread in threads:
        thread.join(30)
    assert state == {"inside": 0, "most": 4}


def test_who_waits_for_a_turn_is_told_of_the_end() -> None:
    turns = Turns()

    def ended() -> None:
        raise CapacityError("the end")

    with turns.turn(lambda: 1, lambda: 1, lambda: None), pytest.raises(CapacityError), turns.turn(lambda: 1, lambda: 1, ended):
        pass


def test_a_job_that_is_one_too_many_gets_no_order_and_another_one_does() -> None:
    async def story() -> None:
        orders = Orders.__ray_metadata__.modified_class(4)
        results = [asyncio.create_task(orders.put("g", {"name": name})) for name in ("one", "two", "three")]
        await asyncio.sleep(0)
        first = await orders.take("a", "g", 0.1)
        second = await orders.take("b", "g", 0.1)
        assert first and second and {first["name"], second["name"]} == {"one", "two"}
        await orders.limit(1, 1000.0)
        await orders.done("b", {})
        assert await orders.take("b", "g", 0.1) is None  # a works still
        await orders.done("a", {})
        last = await orders.take("a", "g", 0.1)
        assert last and last["name"] == "three"
        await orders.done("a", {})
        await asyncio.gather(*results)
        results = [asyncio.create_task(orders.put("g", {"name": "four"}))]
        await asyncio.sleep(0)
        await orders.limit(1, 0.0)  # more runs than places: whoever had its time leaves, a new job begins
        assert await orders.take("a", "g", 0.1) is None
        await orders.limit(1, 0.5)
        last = await orders.take("c", "g", 0.1)
        assert last and last["name"] == "four"
        await orders.done("c", {})
        await asyncio.gather(*results)

    asyncio.run(story())


def test_limits_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
        assert limit(name) == DEFAULTS[name]
    monkeypatch.setenv(GROW, " 60 ")
    assert limit(GROW) == 60.0
    for name, text in ((GROW, "-1"), (START, "nan"), (LEASE, "1"), (RUNS, "2.5"), (RUNS, "0"), (START, "soon"), (GROW, "inf")):
        monkeypatch.setenv(name, text)
        with pytest.raises(SpecError, match=f"^{name}: .* is not allowed; allowed: a (whole )?number, at least"):
            limit(name)


class Nodes:
    """What Ray would say of its nodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: bool, most: dict[str, float] | None = None) -> None:
        self.looks, self.asked, self.removed = list(looks), [], 0
        monkeypatch.setattr(growth, "fits", lambda _: self.looks.pop(0) if len(self.looks) > 1 else self.looks[0])
        monkeypatch.setattr(growth, "most_resources", lambda: most)
        monkeypatch.setattr(growth, "LOOK_S", 0.01)
        monkeypatch.setattr(growth, "placement_group", self.asked.append)
        monkeypatch.setattr(growth, "remove_placement_group", self.remove)

    def remove(self, _: object) -> None:
        self.removed += 1


def test_a_cluster_that_grows_is_asked_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROW, "60")
    told: list[str] = []
    nodes = Nodes(monkeypatch, False, False, False, True)
    growth.await_growth(JOB, told.append, lambda: None)
    assert (nodes.asked, nodes.removed) == ([[{"CPU": 2}, {"CPU": 2}]], 1)
    assert told == ["waiting: the cluster grows to 2 x 2 CPU, 0 of at most 60 s"]


def test_one_that_does_not_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROW, "0.05")
    nodes = Nodes(monkeypatch, False)
    with pytest.raises(CapacityError, match=r"^job: 1 workers x 1 CPU \+ 0\.5 GPU is not allowed; allowed: .* not grown in 0 s"):
        growth.await_growth(GPU, lambda _: None, lambda: None)
    assert nodes.removed == 1


@pytest.mark.parametrize(("setting", "most", "waits"), [(None, None, False), ("0", None, False), (None, {"CPU": 8.0}, True)])
def test_who_does_not_grow_is_not_waited_for(
    setting: str | None, most: dict[str, float] | None, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(GROW, raising=False)
    if setting:
        monkeypatch.setenv(GROW, setting)
    nodes = Nodes(monkeypatch, False, True, most=most)
    growth.await_growth(JOB, lambda _: None, lambda: None)
    assert bool(nodes.asked) is waits
