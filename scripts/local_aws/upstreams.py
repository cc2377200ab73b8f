"""The registries that ECR pulls from, and how it does: by Debian's docker-registry in proxy mode.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode
from urllib.request import parse_http_list, parse_keqv_list

MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
STORE_SECONDS = 60
# What a pull says where the secret is wrong. Source: github.com/aws/containers-roadmap/issues/2354
REFUSED = (
    "The authentication to the upstream registry failed. Verify that the credentials provided in "
    "the pull through cache rule are correct, and try again."
)
UNREACHABLE = "The upstream registry could not be reached."

# The address of a registry on this machine, by its real host: {"ghcr.io": "127.0.0.1:5001"}.
addresses: dict[str, str] = {}

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Login(NamedTuple):
    """What a rule's secret holds."""

    username: str
    token: str

    def __repr__(self) -> str:
        return f"Login({self.username!r})"  # the token stays out of logs

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.token}".encode()).decode()


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Unavailable(Exception):
    """There is no way to the upstream registry."""


def url_of(host: str) -> str:
    return f"http://{addresses[host]}" if host in addresses else f"https://{host}"


def refuses(host: str, login: Login | None) -> str:
    """Return why a registry does not accept these credentials, empty if it does."""
    own = {"Authorization": login.basic} if login else {}
    try:
        status, challenge = _ask(f"{url_of(host)}/v2/")
        scheme, _, rest = challenge.partition(" ")
        if status == 401 and scheme.lower() == "basic":
            status, _ = _ask(f"{url_of(host)}/v2/", own)
        elif status == 401:
            where = parse_keqv_list(parse_http_list(rest))
            query = urlencode({"service": where.get("service", "")})
            status, _ = _ask(f"{where['realm']}?{query}", own)
    except (OSError, KeyError, ValueError):
        return UNREACHABLE
    return "" if status == 200 else REFUSED


def _ask(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Return a response's status and challenge."""
    try:
        with _direct.open(
            urllib.request.Request(url, headers=dict(headers or {})), timeout=5
        ) as it:
            return it.status, ""
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, error.headers.get("WWW-Authenticate", "")


class Proxy:
    """A docker-registry that fetches from one upstream registry with one login, and keeps it all."""

    def __init__(self, folder: Path, host: str, login: Login | None) -> None:
        """Start it on what `folder` holds already.

        Raises Unavailable where it does not start, which needs an answer of the upstream's.
        """
        # Only this needs them.
        from lab.forwarder import Forwarder
        from lab.parts import start_registry

        self._storage = folder / "images"
        self._road = ExitStack()
        section = {"remoteurl": url_of(host)}
        if login:
            # docker-registry 2.8 uses its credentials with a token server alone. What asks for them
            # itself gets them on the way, and not in the URL, which docker-registry writes into its
            # log.
            section |= {"username": login.username, "password": login.token}
            if host in addresses:
                road = Forwarder(addresses[host], {"Authorization": login.basic})
                section["remoteurl"] = self._road.enter_context(road).url
        try:
            self._daemon, self._address = start_registry(folder, "127.0.0.1", proxy=section)
        except RuntimeError as error:
            self._road.close()
            raise Unavailable(UNREACHABLE) from error

    def stop(self) -> None:
        self._daemon.stop()
        self._road.close()

    def get(self, path: str) -> Reply:
        connection = http.client.HTTPConnection(self._address, timeout=STORE_SECONDS)
        try:
            connection.request("GET", path, headers={"Accept": MANIFESTS})
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(repr(error)) from error
        finally:
            connection.close()

    def fetch(self, path: str, reference: str) -> Reply:
        """Return a manifest, once all that it names is stored here."""
        reply = self.get(f"/v2/{path}/manifests/{reference}")
        if reply.status == 200:
            manifest = json.loads(reply.body)
            for blob in filter(None, [manifest.get("config"), *manifest.get("layers", [])]):
                self._store(path, blob["digest"])
        return reply

    def _store(self, path: str, digest: str) -> None:
        if not self.has(path, digest):
            reply = self.get(f"/v2/{path}/blobs/{digest}")
            if reply.status != 200:
                raise Unavailable(UNREACHABLE)
        end = time.monotonic() + STORE_SECONDS
        while not self.has(path, digest):  # it stores what it has sent a little later
            if time.monotonic() > end:
                raise Unavailable(f"{digest} is not stored")
            time.sleep(0.005)

    def has(self, path: str, digest: str) -> bool:
        return self._link(path, digest).exists()

    def _link(self, path: str, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        return self._repository(path) / "_layers" / algorithm / value / "link"

    def _repository(self, path: str) -> Path:
        return self._storage / "docker/registry/v2/repositories" / path

    def forget(self, path: str) -> None:
        """Drop what is stored of a repository."""
        shutil.rmtree(self._repository(path), ignore_errors=True)


_proxies: dict[str, tuple[object, Proxy]] = {}  # with what each was started for, by its name
_starting = asyncio.Lock()


async def proxy_for(name: str, host: str, login: Login | None) -> Proxy:
    """Return the proxy of this name for an upstream registry and its present credentials."""
    wanted = (url_of(host), login)
    async with _starting:
        present = _proxies.get(name)
        if present and present[0] == wanted:
            return present[1]
        folder = Path(os.environ["LOCAL_AWS_FOLDER"], "ecr", name)
        proxy = await asyncio.to_thread(Proxy, folder, host, login)
        if present:  # it may be under way with an image
            threading.Timer(STORE_SECONDS, present[1].stop).start()
        _proxies[name] = (wanted, proxy)
        return proxy


def proxy_named(name: str) -> Proxy:
    return _proxies[name][1]
