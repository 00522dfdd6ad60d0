"""docs/reliability.md out of the fault tests: `python -m tests.faults.page` writes it, a test compares it."""

from pathlib import Path

from autosparse.tasks.results.markdown import markdown
from tests.faults.matrix import Row, rows

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

HEAD = """# Reliability

What happens to a run when something breaks. Each line is a test of the real programs, with real processes and signals where a process
is struck; what is only simulated says so. It asserts the end state (digests of masks, features, labels and final weights against an
undisturbed run, states in Prefect and MLflow, nothing left behind). `make test` has the quick ones, `make test-faults` all of them,
`make chaos` kills at random.

This page is written by `python -m tests.faults.page`, out of the tests.

"""

NOT_PROMISED = """
## Not promised

Training:

- A GPU that runs out of memory and a machine that burns are simulated, as the lines above say.
- Bit equality holds on one machine and one set of versions: other hardware rounds otherwise.
- An evaluation or a checkpoint that takes longer than `job.step_timeout` counts as hung. Work outside Ray Train (scores, features) has no
  watchdog.
- A kill by the kernel for want of memory looks like any other kill; the message says so.

Services:

- Two machines on one S3 storage tell a holder that died from one that is cut off by its silence (`AUTOSPARSE_LEASE_SECONDS`) alone. A local
  storage that several machines share is locked as well as its file system locks.
- A run on S3 that was silent for longer than that and was taken over ends itself as soon as it is back; until then two may work on it.
- MLflow has to answer when a run starts. What it could not be told waits on the machine of the flow: if that is lost,
  `autosparse sync` makes up final figures and files from storage, not the curve of every epoch.
- Prefect reports a killed process of a deployment run twice, some seconds apart: `prefect flow-run retry` in between is ended by the second
  report. Retry again.
- MLflow runs of a killed run stay RUNNING until that run is resumed or synced. `autosparse run` killed with SIGKILL leaves its embedded
  Prefect server, agents of its Ray and a folder among the temporary files until the next `autosparse run`; Prefect shows it as running.

Storage:

- An S3 server that stays busy for more than about 40 s may end an operation with one error; tasks then try again three times.
- An S3 server that ignores `If-None-Match` (`rclone serve s3`) leaves two writers the moment between looking and writing.
- `autosparse gc` knows a write under way by its age alone: `--older-than 0` also ends those.
- Room is checked for a local storage only, from a lower estimate.
- Who can write to the storage can change results: digests find accidents, not attackers.

Security:

- A network named `package.module:factory` is code: who may start a run may run code.
- Exposed servers speak plain HTTP, and an exposed Ray listens on every address and asks for its token.
- MLflow records user names; its exposed server has one user per `autosparse up`.
"""


def page() -> str:
    """The whole page."""
    return HEAD + markdown(("row", "fault", "end state", "test"), map(_cells, rows())) + NOT_PROMISED


def _cells(row: Row) -> list[str]:
    end = f"{row.end} (simulated: {row.simulated})" if row.simulated else row.end
    end = f"**not yet**: {row.gap}; wanted: {end}" if row.gap else end
    return [str(row.number or "beyond"), row.fault, end, f"`{row.test}`{' (slow)' if row.slow else ''}"]


if __name__ == "__main__":
    PAGE.write_text(page())
