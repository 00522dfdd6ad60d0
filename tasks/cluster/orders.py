"""Orders for long-lived jobs: who works on what, and what became of it. One process per fan-out keeps them."""

import asyncio
import math
import time
from collections import deque
from typing import Any

import ray

Order = dict[str, Any]  # name, body as `module:function`, config, alone, tries


@ray.remote(num_cpus=0)
class Orders:
    """Orders wait in groups; a job takes those of one group, one after another. What it holds is its own until it says the outcome."""

    def __init__(self, most_tries: int) -> None:
        self.most_tries = most_tries
        self.waiting: dict[str, deque[Order]] = {}
        self.held: dict[str, Order] = {}  # by job
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.closed = False
        self.most, self.turn_s = math.inf, math.inf  # jobs at once; how long one keeps its place
        self.began: dict[str, float] = {}  # of jobs: when they first asked
        self.changed = asyncio.Condition()

    async def put(self, group: str, order: Order) -> dict[str, Any]:
        """Have an order done; returns its outcome, a report or an error as a value, or `lost` where its workers died too often."""
        name = order["name"]
        async with self.changed:
            self.waiting.setdefault(group, deque()).append({**order, "group": group, "tries": 0})
            self.changed.notify_all()
            await self.changed.wait_for(lambda: name in self.outcomes)
            return self.outcomes.pop(name)

    async def limit(self, most: float, turn_s: float) -> None:
        """Let so many jobs at once have orders, and each go on taking them for so long; what is under way is done."""
        self.most, self.turn_s = most, turn_s

    async def take(self, job: str, group: str, patience: float) -> Order | None:
        """The order that this job's lost workers held, else the next of the group; None = the job may end.

        A job without work waits for `patience` seconds, and ends at once where another group has to wait, or where it is one too many.
        """
        async with self.changed:
            begin = self.began.setdefault(job, time.monotonic())
            if order := self.held.pop(job, None):
                self._try_again(order)
            while not self.waiting.get(group):
                if self.closed or any(self.waiting.values()):
                    return None
                try:
                    await asyncio.wait_for(self.changed.wait(), patience)
                except TimeoutError:
                    return None
            if len(self.held) >= self.most or time.monotonic() - begin > self.turn_s:
                return None
            order = self.waiting[group].popleft()
            self.held[job] = {**order, "tries": order["tries"] + 1}
            return self.held[job]

    async def done(self, job: str, outcome: dict[str, Any]) -> None:
        """What became of the order that a job holds."""
        async with self.changed:
            self._end(self.held.pop(job), outcome)

    async def give_up(self, job: str, group: str, outcome: dict[str, Any] | None) -> None:
        """A job ended by a failure: its order ends with `outcome`, where that says more than another try could, or is tried by another job.

        A job that could not even start counts as a try of the order that waits for it.
        """
        async with self.changed:
            order = self.held.pop(job, None)
            if order is None and self.waiting.get(group):
                first = self.waiting[group].popleft()
                order = {**first, "tries": first["tries"] + 1}
            if order and outcome:
                self._end(order, outcome)
            elif order:
                self._try_again(order)

    async def close(self) -> None:
        """Let every job end that has no work."""
        async with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _try_again(self, order: Order) -> None:
        if order["tries"] >= self.most_tries:
            self._end(order, {"lost": True})
        else:
            self.waiting[order["group"]].appendleft(order)
            self.changed.notify_all()

    def _end(self, order: Order, outcome: dict[str, Any]) -> None:
        self.outcomes[order["name"]] = outcome
        self.changed.notify_all()
