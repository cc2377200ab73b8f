"""ECR on a machine: under its real host name with TLS, and with a token as the agent gets one."""

from __future__ import annotations

import re
import socket
import socketserver
import ssl
import subprocess
import threading
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from lab.agent import Login
from lab.environ import ENVIRON
from lab.metadata import Credentials
from lab.task import TaskError

if TYPE_CHECKING:
    from local_aws import LocalAws

# Images with such a host are ECR's.
IMAGE = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/")

_numbers = count()


class Endpoint:
    """Serves the embedded AWS's ECR on an address of its own, for a `with` statement.

    `etc` is for an engine's /etc: by it the engine finds the host there, and trusts it. At port 443
    there is TLS. Of an address of 127.0.0.0/8 the engine asks port 80 as well once the other has
    refused a request, and it reports what that answers.
    """

    def __init__(self, aws: LocalAws, host: str, directory: Path) -> None:
        self._target = urlsplit(aws.endpoint)
        self._host, self._directory = host, directory
        self.etc = directory / "etc"

    def __enter__(self) -> Self:
        number = 128 + next(_numbers) % 64
        address = f"127.{number}.{getpid() >> 8 & 255}.{getpid() & 255}"
        certificate = self.etc / "docker/certs.d" / self._host / "ca.crt"
        certificate.parent.mkdir(parents=True)
        (self.etc / "hosts").write_text(f"127.0.0.1 localhost\n{address} {self._host}\n")
        key = self._directory / "key"
        subprocess.run(
            [
                *["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"],
                *["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={self._host}"],
                *["-addext", f"subjectAltName=DNS:{self._host}"],
                *["-keyout", str(key), "-out", str(certificate)],
            ],
            env=ENVIRON,
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._servers = [
            socketserver.ThreadingTCPServer((address, port), self._handler(tls))
            for port, tls in ((443, context), (80, None))
        ]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _handler(self, tls: ssl.SSLContext | None) -> type[socketserver.BaseRequestHandler]:
        target = (self._target.hostname, self._target.port)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with (
                    suppress(OSError),  # either end has gone
                    tls.wrap_socket(self.request, server_side=True)
                    if tls
                    else self.request as client,
                    socket.create_connection(target) as server,
                ):
                    back = threading.Thread(target=_pass_on, args=[server, client], daemon=True)
                    back.start()
                    _pass_on(client, server)
                    back.join()

        return Handler


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


class Tokens:
    """ECR's tokens for roles, kept as the agent keeps them: they are good for twelve hours."""

    def __init__(self, aws: LocalAws, assume: Callable[[str], Credentials]) -> None:
        self._aws, self._assume = aws, assume
        self._logins: dict[str, Login] = {}
        self._lock = threading.Lock()

    def login(self, role: str) -> Login | None:
        """Return what to log in with as a role, None without one.

        Raises TaskError, with the agent's words.
        """
        if not role:
            return None
        with self._lock:
            if role not in self._logins:
                self._logins[role] = self._ask(self._assume(role))
            return self._logins[role]

    def _ask(self, credentials: Credentials) -> Login:
        try:
            return token(self._aws.client("ecr", credentials))
        except ClientError as error:
            found = error.response
            raise TaskError(
                "CannotPullECRContainerError: operation error ECR: GetAuthorizationToken, "
                "https response error StatusCode: "
                f"{found['ResponseMetadata']['HTTPStatusCode']}, RequestID: "
                f"{found['ResponseMetadata'].get('RequestId', '')}, api error "
                f"{found['Error']['Code']}: {found['Error']['Message']}"
            ) from None


def token(ecr: Any) -> Login:
    """Return what to log in with, as a client of ECR."""
    (given,) = ecr.get_authorization_token()["authorizationData"]
    username, _, password = b64decode(given["authorizationToken"]).decode().partition(":")
    return {"username": username, "password": password}
