"""What registries do, rightly or not: material for `check` and for the Docker Engine alike."""

from __future__ import annotations

import gzip
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from checks import ADA, PASSWORD
from lab.parts import Engine, PullError
from registry_server import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    RegistryServer,
    Reply,
    Request,
    Step,
    Stored,
    digest_of,
    layer,
)

from batchreg.registry.logins import Credentials

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
HELM = "application/vnd.cncf.helm.config.v1+json"

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OTHER = {"amd64": "arm64", "arm64": "amd64"}[MACHINE]
NOT_ADA = Credentials("ada", "wrong")
Setup = Callable[[RegistryServer, RegistryServer], None]


@dataclass(frozen=True)
class Behavior:
    """A registry with one image, lab/align:3, and what it does differently from a plain one.

    `cause`: what `check` makes of it. `differs`: why the engine may say otherwise. The image:
    `config`, `manifest` and `kinds` are overrides of its parts; `platforms` make it an index with
    an image for each. `setup` gets the server, and another one for those who are sent there.
    """

    name: str
    cause: str = "ok"
    credentials: Credentials | None = ADA
    login: str = "bearer"
    repository: str = "lab/align"
    reference: str = ":3"
    config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    kinds: Sequence[str] = (MANIFEST, CONFIG, LAYER)
    platforms: Sequence[Mapping[str, str] | None] | None = None
    index_kind: str = INDEX
    steps: Mapping[str, Step] = field(default_factory=dict)
    setup: Setup | None = None
    differs: str = ""

    def fill(self, server: RegistryServer, other: RegistryServer) -> str:
        """Give the server the image, unlike that of any other behavior; return its digest."""
        kind, config_kind, layer_kind = self.kinds
        config = {
            "architecture": MACHINE,
            "os": "linux",
            "config": {"Labels": {"for": self.name}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer())]},
            **self.config,
        }
        content = json.dumps({name: value for name, value in config.items() if value}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": Stored(content, config_kind).descriptor(),
            "layers": [Stored(layer(), layer_kind).descriptor()],
            **self.manifest,
        }
        image = Stored(json.dumps(manifest).encode(), kind)
        server.blobs |= {digest_of(layer()): layer(), digest_of(content): content}
        references = {"3": image}
        if self.platforms is not None:
            entries = [
                image.descriptor(**({} if one is None else {"platform": one}))
                for one in self.platforms
            ]
            body = {"schemaVersion": 2, "mediaType": self.index_kind, "manifests": entries}
            index = Stored(json.dumps(body).encode(), self.index_kind)
            references = {"3": index, "child": image}
        server.images |= {"lab/align": references, "other/align": references}
        server.rights |= {"ada": {"lab/align"}, "": {"lab/open"}}
        server.images["lab/open"] = references
        server.users["ada"] = PASSWORD
        server.login = self.login
        server.steps.update(self.steps)
        if self.setup:
            self.setup(server, other)
        return references["3"].digest


def say(status: int, body: object = b"", kind: str = "application/json", **headers: Any) -> Step:
    """Return a step that gives this answer, headers with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, body, kind, named)


def changed(how: Callable[[Reply], Reply], pattern: str) -> Setup:
    """Return a setup that changes the answers to requests of this pattern."""

    def setup(server: RegistryServer, _: RegistryServer) -> None:
        usual = RegistryServer.usual

        def step(request: Request) -> Reply:
            return how(usual(server, request))

        server.steps[pattern] = step

    return setup


def status(code: int, pattern: str) -> Setup:
    """Return a setup in which answers have another status."""
    return changed(lambda reply: replace(reply, status=code), pattern)


def body(pattern: str, how: Callable[[Any], object]) -> Setup:
    """Return a setup in which answers have another body."""
    return changed(lambda reply: replace(reply, body=how(reply.body)), pattern)


def token(**fields: Any) -> Setup:
    """Return a setup in which the token server adds fields to its answer."""

    return body("GET /token", lambda usual: {**usual, **fields})


def headers(pattern: str, **more: Any) -> Setup:
    """Return a setup that adds headers to answers, or takes them away where they are empty."""
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return changed(
        lambda reply: Reply(
            reply.status,
            reply.body,
            named.get("Content-Type", reply.kind),
            {**reply.headers, **{n: v for n, v in named.items() if n != "Content-Type"}},
        ),
        pattern,
    )


def zipped(reply: Reply) -> Reply:
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    return Reply(
        reply.status, gzip.compress(body), reply.kind, {**reply.headers, "Content-Encoding": "gzip"}
    )


def challenge(*values: str) -> Setup:
    """Return a setup in which GET /v2/ asks for credentials in these words, {} for the realm."""

    def setup(server: RegistryServer, _: RegistryServer) -> None:
        offers = [value.replace("{}", server.realm) for value in values]
        server.steps["GET /v2/"] = say(401, {}, WWW_Authenticate=offers)

    return setup


def redirected(pattern: str, path: str = "", *, away: bool = True, status: int = 307) -> Setup:
    """Return a setup that sends requests on, to the other server or to another path of this one."""

    def setup(server: RegistryServer, other: RegistryServer) -> None:
        target = other if away else server
        for name in ("images", "blobs", "users", "rights"):
            getattr(other, name).update(getattr(server, name))

        def step(request: Request) -> Reply | None:
            if request.path == path:
                return None
            query = f"?{urlencode(request.query)}" if request.query else ""
            where = f"{target.url}{path or request.path}{query}"
            return Reply(status, b"", headers={"Location": where})

        server.steps[pattern] = step

    return setup


def both(*setups: Setup) -> Setup:
    def setup(server: RegistryServer, other: RegistryServer) -> None:
        for one in setups:
            one(server, other)

    return setup


def other_login(login: str) -> Setup:
    def setup(_: RegistryServer, other: RegistryServer) -> None:
        other.login = login

    return setup


def harbor(server: RegistryServer, _: RegistryServer) -> None:
    """Give a token to everybody, and refuse it later where the password was wrong."""

    def step(request: Request) -> Reply | None:
        right = request.basic == ("ada", PASSWORD)
        return None if right else Reply(200, {"token": "bm9ib2R5"})

    server.steps["GET /token"] = step


def nested(server: RegistryServer, _: RegistryServer) -> None:
    """Put the image's index into another one, as an image for this machine."""
    references = server.images["lab/align"]
    inner = references["3"]
    entries = [inner.descriptor(platform=LINUX)]
    outer = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    references |= {"3": Stored(json.dumps(outer).encode(), INDEX), "inner": inner}


def twice(server: RegistryServer, _: RegistryServer) -> None:
    """Put an image that is not there before the one that is, for the same platform."""
    references = server.images["lab/align"]
    index = json.loads(references["3"].body)
    gone = {**index["manifests"][0], "digest": "sha256:" + "0" * 64}
    index["manifests"].insert(0, gone)
    references["3"] = Stored(json.dumps(index).encode(), INDEX)


def configured(content: bytes) -> Setup:
    """Return a setup in which the image's configuration is something else, with its digest."""

    def setup(server: RegistryServer, _: RegistryServer) -> None:
        references = server.images["lab/align"]
        manifest = json.loads(references["3"].body)
        manifest["config"] = Stored(content, CONFIG).descriptor()
        server.blobs[digest_of(content)] = content
        references["3"] = Stored(json.dumps(manifest).encode())

    return setup


LINUX = {"os": "linux", "architecture": MACHINE}
ATTESTATION = {"os": "unknown", "architecture": "unknown"}
PING, TOKEN = "GET /v2/", "GET /token"
MANIFESTS, HEAD, GET = r".* /v2/.*/manifests/.*", r"HEAD .*/manifests/.*", r"GET .*/manifests/.*"
BY_DIGEST = r"GET .*/manifests/sha256:.*"
BLOBS = r"GET .*/blobs/.*"
CONFIG_BLOB = r"GET .*/blobs/(?!" + digest_of(layer()) + ").*"
WINDOWS = {"os": "windows", "architecture": MACHINE}
BIG = {"annotations": {"padding": "x" * (5 << 20)}}
HTML = b"<html><title>Welcome</title></html>"


def pulled(engine: Engine, image: str, credentials: Credentials | None = None) -> str:
    """Return what the engine says against an image, empty where it pulls it."""
    try:
        engine.pull(image, vars(credentials) if credentials else None)
    except PullError as error:
        return str(error)
    engine.remove(image)
    return ""
