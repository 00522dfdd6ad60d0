"""A proxy in front of a real S3 server that misbehaves on command.

Requests go on byte for byte, `Host` included, because the signature covers it. Faults are rules: the first one that fits a request
strikes it. `If-None-Match` can be answered here, for `rclone serve s3` does not know it.
"""

import http.client
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from urllib.parse import urlsplit

BUSY = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BROKEN = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>"
TAKEN = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>PreconditionFailed</Code><Message>There is one.</Message></Error>"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST
PIECES, PAUSE_S = 20, 0.1  # of a slow body


@dataclass
class Rule:
    """`what`: busy, broken, reset, reset_body, lost_reply, slow or stall, for requests that `method` and `contains` fit."""

    what: str
    count: float = float("inf")
    seconds: float = float("inf")  # since the first request that was struck
    method: str = ""
    contains: str = ""  # of path and query
    struck: list[float] = field(default_factory=list)

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is struck; it counts."""
        now = time.monotonic()
        if self.method not in ("", method) or self.contains not in path or len(self.struck) >= self.count:
            return False
        if self.struck and now - self.struck[0] > self.seconds:
            return False
        self.struck.append(now)
        return True


@dataclass
class FaultProxy:
    """`address` is what clients are told; `asked` lists (method, path with query) of all requests."""

    upstream: str
    conditional: bool = False
    address: str = ""
    rules: list[Rule] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)
    creating: Lock = field(default_factory=Lock)
    made: set[str] = field(default_factory=set)  # keys that were put on condition
    closed: Event = field(default_factory=Event)

    def fault(self, what: str, **fits: object) -> Rule:
        """Add a rule; `Rule.struck` counts what it did."""
        rule = Rule(what, **fits)  # type: ignore[arg-type]
        self.rules.append(rule)
        return rule

    def strike(self, method: str, path: str) -> str:
        """Note a request; what happens to it, or nothing."""
        with self.lock:
            self.asked.append((method, path))
            return next((rule.what for rule in self.rules if rule.strikes(method, path)), "")

    def is_taken(self, path: str) -> bool:
        """Whether a request to create this key comes second."""
        with self.lock:
            taken = path in self.made
            self.made.add(path)
            return taken


@contextmanager
def fault_proxy(upstream: str, *, conditional: bool = False) -> Iterator[FaultProxy]:
    """A proxy on a free loopback port, in threads of this process. `conditional`: it answers `If-None-Match: *` itself."""
    proxy = FaultProxy(upstream, conditional)

    class OfThisProxy(Handler):
        state = proxy

    with ThreadingHTTPServer(("127.0.0.1", 0), OfThisProxy) as server:
        server.daemon_threads, server.block_on_close = True, False  # clients keep their connections open
        proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.closed.set()
            server.shutdown()


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    state: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def relay(self) -> None:
        """Read a request whole, then spoil it or pass it on."""
        assert "chunked" not in self.headers.get("Transfer-Encoding", ""), "S3 clients say how much they send"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what = self.state.strike(self.command, self.path)
        if what in self.spoilers:
            self.spoilers[what](self, body)
        elif self.state.conditional and self.headers.get("If-None-Match") == "*":
            with self.state.creating:  # who is told that it lost may read at once what won
                if self.state.is_taken(self.path):
                    self.answer(412, TAKEN)
                else:
                    self.send_on(body, what)
        else:
            self.send_on(body, what)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = relay

    def send_on(self, body: bytes, what: str) -> None:
        """The server's answer, spoiled on its way back where `what` says so."""
        status, headers, content = self.ask(body)
        if what == "lost_reply":
            return self.reset(b"")
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if what == "reset_body":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            return self.reset(b"")
        size = max(len(content) // PIECES, 1) if what == "slow" else max(len(content), 1)
        for start in range(0, len(content), size):
            self.wfile.write(content[start : start + size])
            if what == "slow":
                self.state.closed.wait(PAUSE_S)
        return None

    def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The same request to the server: status, headers and content of its answer."""
        connection = http.client.HTTPConnection(urlsplit(self.state.upstream).netloc, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        headers = [item for item in response.getheaders() if item[0].lower() not in ("connection", "transfer-encoding")]
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(content))))
        return response.status, headers, content

    def answer(self, status: int, content: bytes) -> None:
        """An answer of the proxy's own."""
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reset(self, body: bytes) -> None:
        """Break the connection off."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.rfile.close()
        with suppress(OSError):
            self.wfile.close()
        self.connection.close()

    def stall(self, body: bytes) -> None:
        """Never answer."""
        self.state.closed.wait()
        self.close_connection = True

    spoilers: dict[str, Callable[["Handler", bytes], None]] = {  # noqa: RUF012
        "busy": lambda self, body: self.answer(503, BUSY),
        "broken": lambda self, body: self.answer(500, BROKEN),
        "reset": reset,
        "stall": stall,
    }

    def handle(self) -> None:
        """A client that goes away in the middle is no error of the proxy."""
        with suppress(ConnectionError, ValueError):  # ValueError: closed by `reset`
            super().handle()

    def finish(self) -> None:
        """As `handle`."""
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass
