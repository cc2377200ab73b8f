"""What the tests' own HTTP servers share: TLS, silence, and the end of a connection."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol


class Reset(Exception):
    """End the connection without an answer."""


class Owner(Protocol):
    """Whose server it is."""

    certificate: Path | None
    errors: list[BaseException]


class Listener(ThreadingHTTPServer):
    """Serves an owner, over TLS where it has a certificate, and keeps its mistakes for it."""

    daemon_threads = True

    def __init__(
        self, owner: Owner, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]
    ) -> None:
        self.owner = owner
        self.tls = None
        if owner.certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(owner.certificate)
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self.tls:  # the handshake comes with the first byte read, in the request's own thread
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if error and not isinstance(error, ConnectionError | ssl.SSLError):
            self.owner.errors.append(error)


class Handler(BaseHTTPRequestHandler):
    """Handles requests without a word on stderr."""

    def reset(self) -> None:
        """End the connection; without lingering, which makes it RST instead of FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, *_: object) -> None:
        pass
