"""An HTTP server that passes requests on to another, keeps them, and lets a caller step in."""

from __future__ import annotations

import http.client
import io
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

# Between two neighbours only (RFC 9110, section 7.6.1), or set again here.
HOP_BY_HOP = ("connection", "date", "keep-alive", "server", "transfer-encoding", "content-length")


@dataclass(frozen=True)
class Call:
    """A request with its answer; times are those of time.time()."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    began: float
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def operation(self) -> str:
        """The operation in any of AWS's protocols: CreateChangeSet, /v1/listjobs."""
        if target := self.headers.get("X-Amz-Target"):
            return target.rsplit(".", 1)[-1]
        if found := re.search(rb"(?:^|&)Action=(\w+)", self.body):
            return found[1].decode()
        return self.path.partition("?")[0]

    @property
    def text(self) -> bytes:
        """The request, whole."""
        lines = [f"{self.method} {self.path}", *(f"{k}: {v}" for k, v in self.headers.items())]
        return "\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Drop(Exception):
    """End the connection without an answer, as a firewall or a lost Wi-Fi does."""


class Forwarder:
    """A server on a free port of 127.0.0.1, for a `with` statement.

    A subclass steps in by `before`, which may answer a request itself, and by `after`, which may
    change an answer; both may raise Drop.
    """

    def __init__(self, target: str, extra: Mapping[str, str] | None = None) -> None:
        """Pass requests on to `target`, with the headers of `extra` that they lack."""
        self.calls: list[Call] = []
        self._host = urlsplit(target).netloc or target
        self._extra = extra or {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def before(self, call: Call) -> Reply | None:
        """Answer a request, or let it pass."""
        return None

    def after(self, call: Call, reply: Reply) -> Reply:
        """Return what the client gets for an answer."""
        return reply

    def forward(self, call: Call) -> Reply:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        given = {name.lower() for name in call.headers}
        more = {name: text for name, text in self._extra.items() if name.lower() not in given}
        try:
            connection.request(call.method, call.path, call.body, {**call.headers, **more})
            answer = connection.getresponse()
            headers = {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}
            length = answer.getheader("Content-Length")
            if call.method == "HEAD" and length:
                headers["Content-Length"] = length  # of what a GET would bring
            return Reply(answer.status, answer.read(), headers)
        finally:
            connection.close()


def _handler(forwarder: Forwarder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # clients keep their connections, as with AWS
        disable_nagle_algorithm = True
        wbufsize = -1

        def serve(self) -> None:
            began = time.time()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            # Engines write a header such as Accept in several lines.
            headers = {name: ", ".join(self.headers.get_all(name, [])) for name in self.headers}
            call = Call(self.command, self.path, headers, body, began)
            try:
                reply = forwarder.before(call)
                if reply is None:
                    reply = forwarder.after(call, forwarder.forward(call))
            except Drop:
                return self.drop()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in reply.headers:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            # Known before the client has its answer.
            forwarder.calls.append(replace(call, ended=time.time()))
            self.wfile.flush()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

        def drop(self) -> None:
            """Reset the connection."""
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            for each in (self.rfile, self.wfile, self.connection):
                each.close()
            self.wfile = io.BytesIO()  # the base class flushes it
            self.close_connection = True

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client has been interrupted
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
