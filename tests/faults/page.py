"""docs/reliability.md out of the fault tests: `python -m tests.faults.page` writes it, a test compares it."""

from pathlib import Path

from tests.faults.matrix import Row, rows

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

HEAD = """# Reliability

What happens to a run when something breaks. Each line is a test with real processes and real signals; it asserts the end state
(digests of masks, features, labels and final weights against an undisturbed run, states in Prefect and MLflow, nothing left behind),
never the text of a log. `make test` has the quick ones, `make test-faults` all of them, `make chaos` kills at random.

This page is written by `python -m tests.faults.page`, out of the tests.

| row | fault | end state | test |
|---|---|---|---|
"""

NOT_PROMISED = """
## Not promised

- A GPU that runs out of memory and a machine that burns are simulated, as the lines above say.
- Bit equality holds on one machine and one set of versions: other hardware rounds otherwise.
- Between several machines only the deployment's concurrency limit keeps two runs of one spec apart; on one machine a lock does.
- An S3 server that ignores `If-None-Match` leaves a moment between looking and creating.
- Who can write to the storage can change results: digests find accidents, not attackers.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(map(_line, rows())) + NOT_PROMISED


def _line(row: Row) -> str:
    end = f"{row.end} (simulated: {row.simulated})" if row.simulated else row.end
    return f"| {row.number or 'beyond'} | {row.fault} | {end} | `{row.test}`{' (slow)' if row.slow else ''} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
