"""HTTP to a registry and its token server: one deadline for all of it, and TLS for all others."""

from __future__ import annotations

import base64
import functools
import http.client
import json
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from batchreg import __version__, waiting
from batchreg.registry import problems
from batchreg.registry.problems import Problem
from batchreg.registry.proxies import is_local, proxy_for

# The OCI distribution specification promises 4 MiB for a manifest; the engine takes more.
MOST_BYTES = 32 << 20
MOST_REDIRECTS = 10  # as of Go's HTTP client
Origin = tuple[str, str, int]  # scheme, host, port


@dataclass(frozen=True)
class Response:
    """What a server said. Its words stay here: any of them might be the password, sent back.

    `url` is where it came from, after redirects; `host` is that of it, with the port unless that
    is the usual one.
    """

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    host: str
    url: str

    @property
    def success(self) -> bool:
        """Tell whether the Docker Engine takes the status for a success."""
        return 200 <= self.status < 400

    @property
    def html(self) -> bool:
        return self.headers.get_content_type() == "text/html"

    def json(self) -> dict[str, Any]:
        """Return the object in the body, an empty one if there is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class RegistryClient:
    """Sends the requests of one check, all of which end by the same time.

    Only looking up a host's name can take longer: the standard library cannot stop that.
    """

    def __init__(self, registry: str, seconds: float) -> None:
        """Start the clock; `registry` may be used without TLS if it is on this machine."""
        self.seconds, self.until = seconds, time.monotonic() + seconds
        self.local = is_local(registry)
        self.peer = registry  # whom it waits for
        self._proxy = ""
        self._connections: dict[Origin, http.client.HTTPConnection] = {}
        self._over = threading.Event()

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        authorization: str = "",
        root: str = "",
    ) -> Response:
        """Send a request, follow its redirects, and return the response, whatever its status.

        `authorization` is a header's value. With `root`, a URL that ends with /v2/, it goes to
        URLs below that alone, wherever redirects lead; without, it does not follow a redirect to
        another origin. Raises Problem if no response comes.
        """
        for _ in range(MOST_REDIRECTS):
            origin = self.origin(url)
            sent = {
                "User-Agent": f"batchreg/{__version__}",
                "Accept": "application/json",
                **({} if method == "HEAD" else {"Accept-Encoding": "gzip"}),
                **(headers or {}),
            }
            if authorization and (not root or self._is_below(root, url)):
                sent["Authorization"] = authorization
            with waiting.pending(f"Waiting for {origin[1]} to answer", is_call=True):
                response = self._send(origin, method, url, sent)
            where = response.headers["Location"]
            if response.status not in (301, 302, 303, 307, 308) or not where:
                return response
            with suppress(ValueError):  # else `origin` says so
                where = urljoin(url, where)
            url = where
            if self.origin(url) != origin and not root:
                authorization = ""  # and it stays away, even if the next redirect leads back
        raise problems.redirect_loop(self.peer)

    def _is_below(self, root: str, url: str) -> bool:
        """Tell whether the path of a URL leads, up to its first /v2/, to the root."""
        before, found, _ = urlsplit(url).path.partition("/v2/")
        return bool(found) and (self.origin(url), f"{before}/v2/") == (
            self.origin(root),
            urlsplit(root).path,
        )

    def origin(self, url: str) -> Origin:
        """Return where a URL leads; Problem if it is not safe to send a request there.

        Without TLS only this machine is asked, and only for a registry on this machine.
        """
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("ascii").decode()
            port = parts.port or {"http": 80}.get(parts.scheme, 443)
        except ValueError:
            host, port = "", 0
        if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
            raise problems.bad_address(self.peer)
        secure = parts.scheme == "https"
        if not secure and not (parts.scheme == "http" and self.local and is_local(host)):
            raise problems.insecure(self.peer, host)
        return parts.scheme, host, port

    def timeout(self) -> Problem:
        return problems.timeout(self.peer + self._proxy, self.seconds)

    def stop(self) -> None:
        """End every request at once: what waits for bytes, in whatever thread, gets an error."""
        self._over.set()
        for connection in list(self._connections.values()):
            if connection.sock:
                with suppress(OSError):  # it is not connected any more
                    # Not the method of a socket with TLS, which would drop its TLS first.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _send(self, origin: Origin, method: str, url: str, headers: dict[str, str]) -> Response:
        _, host, port = origin
        self.peer = host if port in (80, 443) else f"{host}:{port}"
        parts = urlsplit(url)
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection = None
        try:
            connection = self._connection(origin)
            if connection.sock:
                connection.sock.settimeout(self._left())
            connection.request(method, path, headers=headers)
            with connection.getresponse() as response:
                body = response.read(MOST_BYTES)
                if response.read(1):
                    connection.close()
                    body = b""
            if response.headers["Content-Encoding"] == "gzip" and method != "HEAD":
                unzip = zlib.decompressobj(wbits=31)
                body = unzip.decompress(body, MOST_BYTES)
                if not unzip.eof:
                    raise ValueError
        except (OSError, ValueError, http.client.HTTPException, zlib.error) as error:
            if connection:
                connection.close()
            raise self._problem(error) from None
        except Problem:  # of the proxy
            if connection:
                connection.close()
            raise
        return Response(response.status, response.headers, body, self.peer, url)

    def _left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0 or self._over.is_set():
            raise TimeoutError
        return left

    def _connection(self, origin: Origin) -> http.client.HTTPConnection:
        """Return the connection to an origin; it opens itself, again if need be."""
        if origin in self._connections:
            return self._connections[origin]
        scheme, host, port = origin
        via = proxy_for(scheme, host, port)
        if via and via.scheme != "http":
            raise problems.proxy_unsupported(self.peer, via.scheme)
        address = (str(via.hostname), via.port or 80) if via else (host, port)
        connection = (
            http.client.HTTPConnection(*address)
            if scheme == "http"
            else http.client.HTTPSConnection(*address, context=self._tls)
        )
        if via:
            self._proxy = f" (through the proxy {via.hostname})"
            user = f"{unquote(via.username or '')}:{unquote(via.password or '')}"
            headers = {"Proxy-Authorization": basic(user)} if via.username else {}
            connection.set_tunnel(host, port, headers)
        # The one hook that http.client has for how a connection gets its socket.
        connect = self._connect_proxy if via else self._connect
        connection._create_connection = connect  # type: ignore[attr-defined]
        self._connections[origin] = connection
        return connection

    def _connect_proxy(self, address: tuple[str, int], *_: object) -> socket.socket:
        try:
            return self._connect(address)
        except OSError:
            raise problems.proxy_down(self.peer, f"{address[0]}:{address[1]}") from None

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _connect(self, address: tuple[str, int], *_: object) -> socket.socket:
        """Try a host's addresses one by one; a silent one leaves time for the others."""
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _name, place) in enumerate(found, 1):
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(self._left() / (len(found) - number + 1))
                made.connect(place)
                made.settimeout(self._left())
            except OSError:
                made.close()
                if number == len(found):
                    raise
            else:
                return made
        raise socket.gaierror  # a name without addresses

    def _problem(self, error: Exception) -> Problem:
        """Say why no response came; only OpenSSL's and the system's words are passed on."""
        peer = self.peer + self._proxy
        if isinstance(error, TimeoutError):
            return self.timeout()
        if isinstance(error, ssl.SSLCertVerificationError):
            return problems.untrusted(peer, error.verify_message.rstrip("."))
        if isinstance(error, ssl.SSLError):
            if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
                return problems.no_tls(peer)
            return problems.broken_tls(peer, (error.reason or "no TLS").lower().replace("_", " "))
        if str(error).startswith("Tunnel connection failed"):
            return problems.proxy_refused(peer)
        # In this order: RemoteDisconnected is both a ConnectionError and an HTTPException.
        kinds: tuple[tuple[tuple[type[Exception], ...], Callable[[str], Problem]], ...] = (
            ((socket.gaierror, UnicodeError), problems.unknown_host),
            ((ConnectionRefusedError,), problems.refused),
            ((ConnectionError,), problems.hung_up),
        )
        for types, problem in kinds:
            if isinstance(error, types):
                return problem(peer)
        if isinstance(error, OSError):
            return problems.unreachable(peer, error.strerror or "")
        return problems.not_http(peer)


def basic(user_and_password: str) -> str:
    """Return a Basic Authorization header; bytes of the shell that are not UTF-8 are sent as is."""
    data = user_and_password.encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(data).decode()}"
