"""Passes HTTP requests on to a server, and notes each with the time that it took."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

# Between two neighbours only (RFC 9110, section 7.6.1), or set anew here.
HOP_BY_HOP = ("connection", "date", "keep-alive", "server", "transfer-encoding", "content-length")


@dataclass(frozen=True)
class Call:
    """One request, with the seconds from its arrival to its answer."""

    method: str
    path: str
    target: str  # X-Amz-Target
    body: bytes
    seconds: float


class Relay:
    """A server on a free port of 127.0.0.1, for a `with` statement."""

    def __init__(self, host: str, extra: Mapping[str, str] | None = None) -> None:
        """Pass requests on to `host`, with the headers of `extra` that they lack."""
        self.calls: list[Call] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # clients keep their connections, as with AWS
            disable_nagle_algorithm = True
            wbufsize = -1

            def serve(self) -> None:
                began = time.perf_counter()
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                onward = http.client.HTTPConnection(host, timeout=60)
                for name, value in (extra or {}).items():
                    if name not in self.headers:  # whatever its case
                        self.headers[name] = value
                onward.request(self.command, self.path, body, dict(self.headers))
                answer = onward.getresponse()
                content = answer.read()
                onward.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()
                relay.calls.append(
                    Call(
                        self.command,
                        self.path,
                        self.headers["X-Amz-Target"] or "",
                        body,
                        time.perf_counter() - began,
                    )
                )

            do_GET = do_PUT = do_POST = do_HEAD = serve

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
