"""Who takes which order, how often it is tried, and when a job may end; without Ray."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from autosparse.tasks.cluster.orders import Orders

BOOK: Any = Orders.__ray_metadata__.modified_class  # type: ignore[attr-defined]
SOON = 0.05


def played(game: Callable[[Any], Awaitable[None]], tries: int = 2) -> None:
    async def begin() -> None:
        await game(BOOK(tries))

    asyncio.run(begin())


async def ordered(book: Any, *names: str, group: str = "a") -> list[asyncio.Task[dict[str, Any]]]:
    tasks = [asyncio.create_task(book.put(group, {"name": name, "body": "m:f", "config": {}, "alone": False})) for name in names]
    await asyncio.sleep(0)
    return tasks


def test_orders_of_a_group_go_out_in_turn_and_each_gets_its_own_outcome() -> None:
    async def game(book: Any) -> None:
        one, two = await ordered(book, "one", "two")
        assert [(await book.take(job, "a", SOON))["name"] for job in ("x", "y")] == ["one", "two"]
        await book.done("y", {"accuracy": 2})
        await book.done("x", {"accuracy": 1})
        assert (await one, await two) == ({"accuracy": 1}, {"accuracy": 2})
        assert await book.take("x", "a", SOON) is None

    played(game)


def test_a_job_without_work_waits_for_an_order_and_ends_when_another_group_has_to() -> None:
    async def game(book: Any) -> None:
        waiting = asyncio.create_task(book.take("x", "a", 100))
        await asyncio.sleep(0)
        await ordered(book, "one")
        assert (await waiting)["name"] == "one"
        waiting = asyncio.create_task(book.take("y", "a", 100))
        await asyncio.sleep(0)
        await ordered(book, "other", group="b")
        assert await waiting is None

    played(game)


def test_lost_workers_find_their_order_again_until_it_was_tried_often_enough() -> None:
    async def game(book: Any) -> None:
        one, two = await ordered(book, "one", "two")
        for _ in range(2):
            assert (await book.take("x", "a", SOON))["name"] == "one"  # the second time by the workers that came after
        assert (await book.take("x", "a", SOON))["name"] == "two"
        assert await one == {"lost": True}
        await book.done("x", {})
        assert await two == {}

    played(game)


def test_an_order_of_a_job_that_failed_is_tried_by_another_or_ends_with_what_is_known_of_it() -> None:
    async def game(book: Any) -> None:
        one, two = await ordered(book, "one", "two")
        await book.take("x", "a", SOON)
        await book.give_up("x", "a", None)
        assert (await book.take("y", "a", SOON))["tries"] == 2
        await book.give_up("y", "a", {"error": "known"})
        assert await one == {"error": "known"}
        for job in ("z", "u"):  # jobs that did not even start are tries too
            await book.give_up(job, "a", None)
        assert await two == {"lost": True}

    played(game)


def test_closing_ends_jobs_without_work_and_leaves_work_to_be_done() -> None:
    async def game(book: Any) -> None:
        (one,) = await ordered(book, "one")
        await book.close()
        assert (await book.take("x", "a", 100))["name"] == "one"
        await book.done("x", {})
        assert await one == {} and await book.take("x", "a", 100) is None

    played(game)
