"""HTTP to a registry and its token server: one deadline for all of it, and logins that stay put."""

from __future__ import annotations

import base64
import functools
import http.client
import io
import ipaddress
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from batchreg import __version__

# A manifest may have 4 MiB (the OCI distribution specification); configurations are smaller.
MOST_BYTES = 4 << 20
MOST_REDIRECTS = 5
Origin = tuple[str, str, int]  # scheme, host, port


class Failed(Exception):
    """Why the image cannot be pulled: a Verdict's cause, text and details."""

    def __init__(self, cause: str, text: str, **details: str) -> None:
        super().__init__(text)
        self.cause, self.text, self.details = cause, text, details


@dataclass(frozen=True)
class Answer:
    """What a server said. Its words stay here: any of them might be the login, sent back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    host: str

    @property
    def html(self) -> bool:
        return self.headers.get_content_type() == "text/html"

    def json(self) -> dict[str, Any]:
        """Return the object that the body is, an empty one for anything else."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class RegistryClient:
    """Requests of one conversation, all of which end at the same time at the latest.

    Only looking up a host's name can take longer: the standard library knows no way to stop that.
    """

    def __init__(self, registry: str, seconds: float) -> None:
        """Begin; `registry` may be spoken to without TLS if it is on this machine."""
        self.seconds, self.until = seconds, time.monotonic() + seconds
        self.local = is_local(registry)
        self.peer = registry  # whom it waits for
        self._proxy = ""
        self._connections: dict[Origin, http.client.HTTPConnection] = {}

    def ask(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, *, login: str = ""
    ) -> Answer:
        """Send a request, follow its redirects, and return the answer, whatever its status.

        `login` is the Authorization header, and does not follow a redirect to another origin.
        Raises Failed where no answer comes.
        """
        for _ in range(MOST_REDIRECTS):
            origin = self.origin(url)
            sent = {
                "User-Agent": f"batchreg/{__version__}",
                "Accept": "application/json",
                **(headers or {}),
                **({"Authorization": login} if login else {}),
            }
            answer = self._send(origin, method, url, sent)
            where = answer.headers["Location"]
            if answer.status not in (301, 302, 303, 307, 308) or not where:
                return answer
            with suppress(ValueError):  # else `origin` says so
                where = urljoin(url, where)
            url = where
            if self.origin(url) != origin:
                login = ""  # and it stays away, even if the next redirect leads back
        raise Failed(
            "not-a-registry", f"{self.peer} sends requests in a circle: check the registry's host."
        )

    def origin(self, url: str) -> Origin:
        """Return whom a URL would be asked from; Failed where it is not safe to ask there.

        Without TLS none but this machine may be asked, and that by a registry on this machine.
        """
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("ascii").decode()
            port = parts.port or {"http": 80}.get(parts.scheme, 443)
        except ValueError:
            host, port = "", 0
        if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
            raise Failed(
                "not-a-registry",
                f"{self.peer} names an address that is none: check the registry's host and port.",
            )
        if parts.scheme != "https" and not (
            parts.scheme == "http" and self.local and is_local(host)
        ):
            raise Failed(
                "no-tls",
                f"{self.peer} sends us to {host} without TLS, where others "
                "could read the login: it must be reached by https.",
            )
        return parts.scheme, host, port

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _send(self, origin: Origin, method: str, url: str, headers: dict[str, str]) -> Answer:
        _, host, port = origin
        self.peer = host if port in (80, 443) else f"{host}:{port}"
        parts = urlsplit(url)
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection = None
        try:
            connection = self._connection(origin)
            if connection.sock:
                connection.sock.settimeout(self.left())
            connection.request(method, path, headers=headers)
            with connection.getresponse() as response:
                body = response.read(MOST_BYTES)
                if response.read(1):
                    connection.close()
                    body = b""
        except (OSError, ValueError, http.client.HTTPException) as error:
            if connection:
                connection.close()
            raise self._failure(error) from None
        return Answer(response.status, response.headers, body, self.peer)

    def left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _connection(self, origin: Origin) -> http.client.HTTPConnection:
        """Return the connection to an origin; it opens itself, again if need be."""
        if origin in self._connections:
            return self._connections[origin]
        scheme, host, port = origin
        proxy = "" if is_local(host) or proxy_bypass(host) else getproxies().get(scheme, "")
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        address = (via.hostname, via.port or 80) if via.hostname else (host, port)
        connection = (
            http.client.HTTPConnection(*address)
            if scheme == "http"
            else (http.client.HTTPSConnection(*address, context=self._tls))
        )
        if via.hostname:
            self._proxy = f" (through the proxy {via.hostname})"
            login = f"{unquote(via.username or '')}:{unquote(via.password or '')}"
            connection.set_tunnel(
                host, port, {"Proxy-Authorization": basic(login)} if via.username else {}
            )
        talk = self

        class Response(http.client.HTTPResponse):
            """Reads no longer than there is time, even where byte follows byte."""

            def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
                super().__init__(sock, *args, **options)
                assert isinstance(self.fp, io.BufferedReader)
                self.fp = io.BufferedReader(_Timed(sock, self.fp.detach(), talk))

        connection.response_class = Response
        # The one hook that http.client has for what a connection's socket is made of.
        connection._create_connection = self._connect  # type: ignore[attr-defined]
        self._connections[origin] = connection
        return connection

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _connect(self, address: tuple[str, int], *_: object) -> socket.socket:
        """Try a host's addresses one by one; one that is silent does not cost the others."""
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _name, place) in enumerate(found, 1):
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(self.left() / (len(found) - number + 1))
                made.connect(place)
                made.settimeout(self.left())
            except OSError:
                made.close()
                if number == len(found):
                    raise
            else:
                return made
        raise socket.gaierror  # a name without addresses

    def _failure(self, error: Exception) -> Failed:
        """Say in one line why no answer came; only OpenSSL's words are passed on."""
        peer = self.peer + self._proxy
        if isinstance(error, TimeoutError):
            return self.timeout()
        if isinstance(error, ssl.SSLCertVerificationError):
            why = error.verify_message.rstrip(".")
            return Failed(
                "tls",
                f"The certificate of {peer} is refused ({why}): give it one that "
                "public authorities vouch for, or install your own authority's on the "
                "instances (--user-data), and set SSL_CERT_FILE to that here.",
            )
        if isinstance(error, ssl.SSLError):
            if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
                return Failed(
                    "tls",
                    f"{peer} does not speak TLS: check the port, or give the "
                    "registry a certificate.",
                    why="plain",
                )
            reason = (error.reason or "no TLS").lower().replace("_", " ")
            return Failed(
                "tls",
                f"No secure connection to {peer} ({reason}): check the registry's TLS settings.",
            )
        if isinstance(error, socket.gaierror | UnicodeError):
            return Failed(
                "unreachable",
                f"There is no host {peer} as far as this machine knows: "
                "check the spelling, the network and HTTPS_PROXY.",
                why="dns",
            )
        if isinstance(error, ConnectionRefusedError):
            return Failed(
                "unreachable",
                f"{peer} refuses the connection: is the registry up, and is this its port?",
                why="refused",
            )
        if isinstance(error, ConnectionError):  # before HTTPException: one error of it is both
            return Failed(
                "unreachable",
                f"{peer} hangs up without an answer: is this the "
                "registry's port, or is a firewall in the way?",
                why="closed",
            )
        if str(error).startswith("Tunnel connection failed"):
            return Failed(
                "unreachable",
                f"The proxy does not let us through to {peer}: check HTTPS_PROXY and NO_PROXY.",
                why="proxy",
            )
        if isinstance(error, OSError):
            why = f" ({error.strerror})" if error.strerror else ""
            return Failed(
                "unreachable",
                f"{peer} cannot be reached{why}: check the network and the registry's port.",
                why="network",
            )
        return Failed(
            "not-a-registry", f"{peer} does not answer in HTTP: check the registry's host and port."
        )

    def timeout(self) -> Failed:
        """Say that the time is up."""
        return Failed(
            "unreachable",
            f"{self.peer}{self._proxy} did not answer within "
            f"{self.seconds:g} s: is it up, and does the network let us through to it?",
            why="timeout",
        )


class _Timed(io.RawIOBase):
    """A socket's raw stream, each read of which has the time that is left."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, talk: RegistryClient) -> None:
        self._sock, self._raw, self._talk = sock, raw, talk

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._talk.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def is_local(host: str) -> bool:
    """Tell whether Docker takes this host for its own machine: 127.0.0.0/8, localhost."""
    name = host.rsplit(":", 1)[0] if host.count(":") == 1 else host
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def basic(user_and_password: str) -> str:
    """Return the Authorization header of a login, the shell's bytes that are not UTF-8 included."""
    data = user_and_password.encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(data).decode()}"
