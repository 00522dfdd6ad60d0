"""Live progress in a terminal, plain lines elsewhere: rounds, arms, what runs now, estimated time left."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from autosparse.models.arms.plan import planned, sources
from autosparse.models.specs.experiment import ExperimentSpec
from autosparse.storage.paths import is_arm, is_round
from autosparse.tasks.engine.progress import Event, listening


def expected(spec: ExperimentSpec) -> dict[str, int]:
    """How many rounds and arms a spec has; no rounds without sources."""
    rounds = len(sources(spec)) * spec.irp.rounds
    return ({"rounds": rounds} if rounds else {}) | {"arms": len(planned(spec))}


class RunProgress:
    """Counts finished rounds and arms; a training counts with the share of its epochs that is done."""

    def __init__(self, spec: ExperimentSpec) -> None:
        self.total = expected(spec)
        self.done = dict.fromkeys(self.total, 0)
        self.now: dict[str, tuple[str, float]] = {}
        self._trained = 0
        self._since: tuple[str, float, float] | None = None  # kind of training, when the first of it was done, and what was trained by then

    def take(self, event: Event) -> None:
        """Count an event."""
        kind = "rounds" if is_round(event.step) else "arms" if is_arm(event.step) else None
        if event.kind == "started":
            self.now[event.step] = (event.title, 0.0)
        elif event.kind == "epoch":
            found = event.fields
            where = f"epoch {found['epoch']}/{found['epochs']}, {found['metric']} {found['value']:.3f}"
            self.now[event.step] = (f"{event.title}: {where}", found["epoch"] / found["epochs"])
        elif event.kind in ("finished", "cached", "failed"):
            self.now.pop(event.step, None)
            if kind and event.kind != "failed":
                self.done[kind] += 1
                self._trained += event.kind == "finished"
                if event.kind == "finished" and (self._since is None or self._since[0] != kind):
                    self._since = kind, time.monotonic(), self._trained + self._under_way

    @property
    def _under_way(self) -> float:
        return sum(share for _, share in self.now.values())

    def seconds_left(self) -> float | None:
        """At the pace since the first training of its kind was done, which waited for its process; None where that says nothing yet."""
        if self._since is None:
            return None
        _, start, before = self._since
        trained = self._trained + self._under_way - before
        left = sum(self.total.values()) - sum(self.done.values()) - self._under_way
        if left <= 0:
            return 0.0
        return left * (time.monotonic() - start) / trained if trained > 0 else None


def line(event: Event) -> str | None:
    """An event as a plain line, None where it is not worth one."""
    title, fields = event.title, event.fields
    figures = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
        if name not in ("seconds", "message") and value is not None
    )
    match event.kind:
        case "started":
            return f"[ .. ] {title}"
        case "finished":
            return f"[done] {title}" + (f": {figures}" if figures else "") + f" ({fields.get('seconds', 0.0):.1f} s)"
        case "cached":
            return f"[cached] {title}" + (f": {figures}" if figures else "")
        case "restarted":
            return f"[again] {title}"
        case "failed":
            return f"[fail] {title}: {fields.get('message', '')}"
        case "warning":
            return f"[note] {title}"
        case "waiting":
            return title
    return None


@contextmanager
def shown(spec: ExperimentSpec) -> Iterator[None]:
    """Show the events of this process inside the block."""
    progress = RunProgress(spec)
    console = Console()
    if not console.is_terminal:
        with listening(lambda event: _plain(progress, event)):
            yield
        return
    bars = Progress(TextColumn("{task.description:>7}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    tasks = {kind: bars.add_task(kind, total=count) for kind, count in progress.total.items()}
    with Live(bars, console=console, refresh_per_second=4) as live:

        def take(event: Event) -> None:
            progress.take(event)
            if event.kind in ("finished", "cached", "failed", "restarted", "warning", "waiting"):
                live.console.print(Text(line(event) or ""))
            for kind, task in tasks.items():
                under_way = sum(share for key, (_, share) in progress.now.items() if is_round(key) == (kind == "rounds"))
                bars.update(task, completed=progress.done[kind] + under_way)
            left = progress.seconds_left()
            eta = Text(f"about {left / 60:.1f} min left" if left is not None else "", style="dim")
            live.update(Group(bars, *(Text(f"  {title}", style="dim") for title, _ in progress.now.values()), eta))

        with listening(take):
            yield


def _plain(progress: RunProgress, event: Event) -> None:
    progress.take(event)
    if text := line(event):
        left = progress.seconds_left()
        counts = [f"{progress.done[kind]}/{total} {kind}" for kind, total in progress.total.items()]
        eta = f"  [{', '.join([*counts, *([f'about {left / 60:.1f} min left'] if left is not None else [])])}]"
        sys.stdout.write(text + (eta if event.kind == "finished" else "") + "\n")
        sys.stdout.flush()
