"""A registry with its token server on one port of this machine, for tests: real where it is not
told to be otherwise, and then at every step as wrong as the test says.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import socket
import tarfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from serving import Handler, Listener, Reset

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case

    @property
    def basic(self) -> tuple[str, str] | None:
        """The login of an Authorization header, None without one."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        if kind != "Basic":
            return None
        username, _, password = base64.b64decode(value).decode().partition(":")
        return username, password

    @property
    def bearer(self) -> str:
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        return value if kind == "Bearer" else ""


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: object = b""  # bytes, or what becomes JSON
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0  # seconds before each byte of the body
    head_pause: float = 0  # ... of the status line


Step = Callable[[Request], "Reply | None"]


@dataclass(frozen=True)
class Stored:
    """A manifest or an index, byte for byte, and the type under which it is served."""

    body: bytes
    kind: str = MANIFEST

    @property
    def digest(self) -> str:
        return digest_of(self.body)

    def descriptor(self, **more: object) -> dict[str, object]:
        return {"mediaType": self.kind, "size": len(self.body), "digest": self.digest, **more}


class Hang(Exception):
    """Say nothing for as long as the server lives."""


def raising(error: type[Exception]) -> Step:
    def step(_: Request) -> Reply:
        raise error

    return step


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@cache
def layer() -> bytes:
    """Return a layer with one small file, for images that are pulled and never run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        file = tarfile.TarInfo("etc/lab")
        file.size = 3
        tar.addfile(file, io.BytesIO(b"lab"))
    return buffer.getvalue()


def index(*platforms: str) -> dict[str, object]:
    """Return an index with an image for each platform, such as linux/arm64 or linux/arm/v7."""
    entries = []
    for platform in platforms:
        names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        image = Stored(json.dumps(image_of(names)).encode())
        BUILT[image.digest] = image
        entries.append(image.descriptor(platform=names))
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}


# The images of all indexes, and their configurations, by digest: every server has them.
BUILT: dict[str, Stored] = {}


def image_of(configuration: object, kind: str = CONFIG) -> dict[str, object]:
    """Return the manifest of an image with one layer and this configuration."""
    if isinstance(configuration, dict):
        root = {"type": "layers", "diff_ids": [digest_of(layer())]}
        configuration = {"rootfs": root, **configuration}
    config = Stored(json.dumps(configuration).encode(), kind)
    BUILT[config.digest] = config
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [Stored(layer(), LAYER).descriptor()],
    }


@dataclass
class RegistryServer:
    """Serves in a thread, for a `with` statement. Users have the rights in `rights`.

    `login`: none, basic or bearer. Every repository of `images` is {tag: index or manifest}.
    `blobs` are configurations by digest. `steps`: by a pattern of "METHOD path", what to do
    instead; where that is None, the usual follows.
    """

    login: str = "bearer"
    users: dict[str, str] = field(default_factory=dict)
    rights: dict[str, set[str]] = field(default_factory=dict)
    images: dict[str, dict[str, object]] = field(default_factory=dict)
    blobs: dict[str, object] = field(default_factory=dict)
    token_field: str = "token"
    realm: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)  # headers of every manifest
    certificate: Path | None = None
    address: str = "127.0.0.1"
    steps: dict[str, Step] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    errors: list[BaseException] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> RegistryServer:
        self._server = _Listener(self, (self.address, 0), _Handler)
        self.host = f"{self.address}:{self._server.server_address[1]}"
        self.realm = self.realm or f"{self.url}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert not self.errors

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://{self.host}"

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.requests]

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        for pattern, step in self.steps.items():
            if re.fullmatch(pattern, f"{request.method} {request.path}"):
                reply = step(request)
                if reply:
                    return reply
        return self.usual(request)

    def usual(self, request: Request) -> Reply:
        """Return what a registry without any steps answers."""
        if request.path.rstrip("/") == "/token":
            return self._token(request)
        return self._registry(request)

    def _token(self, request: Request) -> Reply:
        """Answer as the specification says: who is somebody gets a token, with what he may."""
        login = request.basic
        if login and self.users.get(login[0]) != login[1]:
            return Reply(401, {"details": "incorrect username or password"})
        name = login[0] if login else ""
        scope = request.query.get("scope", "")
        repository = scope.removeprefix("repository:").removesuffix(":pull")
        access = repository if repository in self.rights.get(name, ()) else ""
        token = base64.urlsafe_b64encode(json.dumps([name, access]).encode()).decode()
        return Reply(200, {self.token_field: token})

    def _registry(self, request: Request) -> Reply:
        found = re.fullmatch(r"/v2/(?:(.+)/(manifests|blobs|tags)/(.+))?", request.path)
        if not found:
            return Reply(404, b"404 page not found", "text/plain")
        repository, kind, reference = found.groups()
        refusal = self._refuse(request, repository)
        if refusal:
            return refusal
        if not repository:
            return Reply(200, {}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})
        there = self.images.get(repository)
        if there is None:
            return Reply(404, {"errors": [{"code": "NAME_UNKNOWN"}]})
        if kind == "tags":
            return Reply(200, {"name": repository, "tags": sorted(there) or None})
        if kind == "blobs":
            built = BUILT.get(reference)
            blob = self.blobs.get(reference, built and built.body)
            if blob is None:
                return Reply(404, {"errors": [{"code": "BLOB_UNKNOWN"}]})
            return Reply(200, blob, "application/octet-stream")
        found = BUILT | {stored.digest: stored for stored in map(_stored, there.values())}
        stored = _stored(there[reference]) if reference in there else found.get(reference)
        # As real registries do, each type only for those who ask for it.
        if not stored or (
            stored.kind.startswith("application/vnd.")
            and stored.kind not in request.headers.get("accept", "")
        ):
            return Reply(404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        headers = {"Docker-Content-Digest": stored.digest, **self.extra}
        return Reply(200, stored.body, stored.kind, headers)

    def _refuse(self, request: Request, repository: str | None) -> Reply | None:
        """Return the 401 that this request gets, None if it may pass."""
        if self.login == "none":
            return None
        if self.login == "basic":
            login = request.basic
            name = login[0] if login and self.users.get(login[0]) == login[1] else None
            if name and (not repository or repository in self.rights.get(name, ())):
                return None
            return Reply(401, {}, headers={"WWW-Authenticate": 'Basic realm="lab, and others"'})
        challenge = f'Bearer realm="{self.realm}",service="lab, the \\"registry\\""'
        try:
            name, access = json.loads(base64.urlsafe_b64decode(request.bearer))
        except ValueError:
            return Reply(401, {}, headers={"WWW-Authenticate": challenge})
        if (access == repository) if repository else (name is not None):
            return None
        challenge += f',scope="repository:{repository}:pull",error="insufficient_scope"'
        return Reply(401, {}, headers={"WWW-Authenticate": challenge})


def _stored(manifest: object) -> Stored:
    if isinstance(manifest, Stored):
        return manifest
    kind = manifest.get("mediaType", MANIFEST) if isinstance(manifest, dict) else MANIFEST
    body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return Stored(body, str(kind))


class _Listener(Listener):
    def get_request(self) -> tuple[socket.socket, object]:
        found = super().get_request()
        self.owner.connections += 1
        return found


class _Handler(Handler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): ", ".join(self.headers.get_all(name)) for name in self.headers}
        try:
            reply = self.server.owner.answer(Request(self.command, parts.path, query, headers))
        except Hang:
            self.server.owner.ended.wait(30)
            self.close_connection = True
            return
        except Reset:
            return self.reset()
        for byte in b"HTTP/1.1" if reply.head_pause else b"":
            if self.server.owner.ended.wait(reply.head_pause):
                return
            self.wfile.write(bytes([byte]))
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {
            "Content-Type": reply.kind,
            "Content-Length": str(len(body)),
            **reply.headers,
        }.items():
            for one in [value] if isinstance(value, str) else value:
                if one:
                    self.send_header(name, one)
        self.end_headers()
        if self.command == "HEAD":
            return
        for byte in body if reply.pause else b"":
            if self.server.owner.ended.wait(reply.pause):
                return
            self.wfile.write(bytes([byte]))
        if not reply.pause:
            self.wfile.write(body)

    do_GET = do_HEAD = serve


class Proxy:
    """An HTTP proxy whose CONNECT leads to `target`, whatever host is asked for."""

    def __init__(self, target: str, *, status: int = 200) -> None:
        self.target, self.status = target, status
        self.asked: list[tuple[str, str]] = []  # host, Proxy-Authorization

    def __enter__(self) -> Proxy:
        proxy = self

        class Tunnel(Handler):
            def do_CONNECT(self) -> None:
                proxy.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
                self.close_connection = True
                self.send_response_only(proxy.status)
                self.end_headers()
                if proxy.status == 200:
                    host, _, port = proxy.target.partition(":")
                    with socket.create_connection((host, int(port))) as there:
                        back = threading.Thread(target=_pump, args=(there, self.connection))
                        back.start()
                        _pump(self.connection, there)
                        back.join()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Tunnel)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes, until it ends."""
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
