"""The commands that container files and docs may name, and what their `--help` says: a process per program."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from autosparse.tasks import settings

# Every command of ours that a file may name, up to its first option or argument.
COMMANDS = (
    "autosparse bundle",
    "autosparse doctor",
    "autosparse down",
    "autosparse gc",
    "autosparse init",
    "autosparse inspect",
    "autosparse plan",
    "autosparse recipes",
    "autosparse report",
    "autosparse rm",
    "autosparse run",
    "autosparse scorers",
    "autosparse show",
    "autosparse status",
    "autosparse sweep",
    "autosparse table",
    "autosparse up",
    "mlflow experiments restore",
    "mlflow models serve",
    "mlflow server",
    "prefect deployment run",
    "prefect server start",
    "prefect worker start",
    "ray start",
)
ASK = """
import contextlib, io, json, sys
from importlib.metadata import entry_points
program, *commands = sys.argv[1:]
entry = next(iter(entry_points(group="console_scripts", name=program)))
main, told = entry.load(), {}
for command in commands:
    sys.argv = [*command.split(), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            status = main()
        except SystemExit as left:
            status = left.code
    assert not status, (command, status)
    told[command] = said.getvalue()
print(json.dumps(told))
"""


def helps_of(home: str) -> dict[str, str]:
    """The help of each command, as the installed programs print it in that home."""
    environment = {**os.environ, **settings.ENVIRONMENT, "HOME": home, "PREFECT_HOME": home, "COLUMNS": "200", "TERM": "dumb"}
    by_program: dict[str, list[str]] = defaultdict(list)
    for command in COMMANDS:
        by_program[command.split()[0]].append(command)

    def ask(program: str) -> dict[str, str]:
        line = [sys.executable, "-c", ASK, program, *by_program[program]]
        done = subprocess.run(line, env=environment, cwd=home, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor(max_workers=2) as pool:
        found = {command: text for told in pool.map(ask, by_program) for command, text in told.items()}
    assert set(found) == set(COMMANDS) and all(found.values())
    return found
