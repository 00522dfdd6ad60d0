"""The stage of the chaos run: all services as processes of their own, and a way to kill and restart each."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock

from autosparse.storage.open_store import open_store
from autosparse.tasks.services.commands import program
from autosparse.tasks.services.processes import ServiceProcess, is_running, processes
from tests.faults.runs import RECIPE, with_faults
from tests.pipeline.command_line import AUTOSPARSE, ROOT, cli, environment, title_of, wait_for
from tests.s3_server import BUCKET, KEY, SECRET

VICTIMS = ("flow process", "Ray worker", "Ray head", "MLflow server", "Prefect server", "S3 server")
# ten arms out of two scorings on two slots: each of two jobs trains about five, and is killed at any of them
CHAOS = (*RECIPE, "--set", "fanout.seeds=[10,11]", "--set", "fanout.densities=[0.5,0.4,0.3,0.2,0.1]")
SERVICE = {"Ray head": "ray", "MLflow server": "mlflow", "Prefect server": "prefect"}


class Stage:
    """Services in `home`, storage on an S3 server in `home`/s3; every training step of any process leaves a line in `steps`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.steps = home / "steps"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.storage = f"s3://{BUCKET}/chaos"
        self.settings = {
            "AUTOSPARSE_STORAGE": self.storage,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
            **with_faults({"where": "autosparse.models.training.step:train_step", "do": "record", "to": str(self.steps)}),
        }
        self.s3: subprocess.Popen[bytes] | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """All services up; all of them gone afterwards."""
        try:
            self.start_s3()
            self.up()
            os.environ.update(self.settings)  # for open_store in this process
            yield
        finally:
            cli(self.home, "down", **self.settings)
            if self.s3:
                self.s3.kill()
                self.s3.wait()

    def up(self) -> None:
        """Start what is missing; one stage after the other, because two that look for free ports at once find the same."""
        with FileLock(self.home.parent / "up.lock"):
            done = cli(self.home, "up", timeout=180, **self.settings)
        assert done.returncode == 0, done.stderr[-2000:]

    def start_s3(self) -> None:
        """The S3 server, always on the same port and folder."""
        folder = self.home / "s3"
        (folder / BUCKET).mkdir(parents=True, exist_ok=True)
        rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        assert rclone
        where = ("--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}", "--config", os.devnull)
        with (self.home / "s3.log").open("ab") as log:
            self.s3 = subprocess.Popen([rclone, "serve", "s3", *where, folder], stdout=log, stderr=log)
        wait_for(self._s3_answers, 60)

    def start_run(self, name: str) -> subprocess.Popen[str]:
        """The small run under that name, in a session of its own; its lines go to a log."""
        with (self.home / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                [AUTOSPARSE, *CHAOS, "--name", name],
                stdout=log,
                stderr=log,
                text=True,
                env=environment(self.home, **self.settings),
                cwd=ROOT,
                start_new_session=True,
            )

    def kill(self, victim: str, run: subprocess.Popen[str], chance: random.Random) -> bool:
        """SIGKILL for that victim; whether there was one."""
        if victim == "flow process":
            there = run.poll() is None
            run.kill()
            run.wait()  # by its own Popen: whoever else waits for it takes its status away
            return there
        if victim == "S3 server":
            assert self.s3
            found = [psutil.Process(self.s3.pid)]
        elif victim == "Ray worker":
            found = self._ray_workers()
            found = [chance.choice(found)] if found else []
        else:
            found = processes([self._service(victim)])
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=10)
        return bool(found)

    def restart(self, victim: str) -> None:
        """Start again what was killed; workers are started by Ray and the flow process by whoever waits for it."""
        if victim == "S3 server":
            assert self.s3
            self.s3.wait()
            self.start_s3()
        elif victim in SERVICE:
            service = self._service(victim)
            wait_for(lambda: not is_running(service), 30)
            self.up()

    def drop(self, name: str) -> None:
        """Forget the results of a run."""
        open_store(self.storage).delete(f"runs/{name}")

    def steps_done(self) -> int:
        """Training steps of all processes so far."""
        return self.steps.read_bytes().count(b"\n") if self.steps.exists() else 0

    def _service(self, victim: str) -> ServiceProcess:
        row = json.loads((self.home / "services.json").read_text())["processes"][SERVICE[victim]]
        return ServiceProcess(**{**row, "health": tuple(row["health"])})

    def _ray_workers(self) -> list[psutil.Process]:
        found = []
        for process in processes([self._service("Ray head")]):
            title = title_of(process).partition(" ")[0]
            if title.startswith("ray::") and not title.endswith("Agent"):  # an agent takes the raylet along, which is the head's part
                found.append(process)
        return found

    def _s3_answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        time.sleep(0.05)
        return False


def exit_status(run: subprocess.Popen[str], seconds: float) -> int:
    """How the run ended; a run that hangs is shown with its stacks and killed, and fails the chaos run."""
    try:
        return run.wait(seconds)
    except subprocess.TimeoutExpired:
        subprocess.run([program("py-spy"), "dump", "--pid", str(run.pid)])
        os.killpg(run.pid, signal.SIGKILL)
        raise AssertionError(f"the run hung for {seconds:.0f} s") from None
