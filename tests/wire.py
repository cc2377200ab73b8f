"""A proxy between a program and the embedded AWS: keeps what is sent, and lets a test step in."""

from __future__ import annotations

import http.client
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from urllib.parse import urlsplit

Step = Callable[[str, int], None]  # is told the operation, and how often it has come by now


@dataclass(frozen=True)
class Sent:
    """A request, whole."""

    operation: str
    text: bytes


@dataclass
class Wire:
    """Serves on `endpoint` what `target` answers.

    `before` is called when a request is there, `after` when its answer is; `answer` may change the
    answer's body.
    """

    target: str
    before: Step = lambda operation, count: None
    after: Step = lambda operation, count: None
    answer: Callable[[str, bytes], bytes] = lambda operation, body: body
    sent: list[Sent] = field(default_factory=list)

    def __enter__(self) -> Wire:
        wire, counts = self, Counter[str]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                operation = _operation(self.path, dict(self.headers), body)
                counts[operation] += 1
                head = f"{self.requestline}\n{self.headers}".encode()
                wire.sent.append(Sent(operation, head + body))
                wire.before(operation, counts[operation])
                upstream = http.client.HTTPConnection(urlsplit(wire.target).netloc, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers))
                response = upstream.getresponse()
                answer = wire.answer(operation, response.read())
                upstream.close()
                wire.after(operation, counts[operation])
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in (
                        "content-length",
                        "transfer-encoding",
                        "connection",
                        "date",
                        "server",
                    ):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_DELETE = do_POST

            def handle(self) -> None:
                with suppress(ConnectionError):  # the program has been interrupted
                    super().handle()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _operation(path: str, headers: dict[str, str], body: bytes) -> str:
    """Name the operation in any of AWS's protocols: CreateChangeSet, /v1/listjobs."""
    if target := headers.get("X-Amz-Target"):
        return target.split(".")[-1]
    if found := re.search(rb"(?:^|&)Action=(\w+)", body):
        return found[1].decode()
    return path.split("?")[0]
