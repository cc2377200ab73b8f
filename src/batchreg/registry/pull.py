"""Do what the Docker Engine does to pull an image, up to where the layers would come.

tests/e2e/test_check_engine.py holds both against each other. What differs is meant to:
- The ECS agent finds no credentials for some spellings of a host, which the engine would accept.
- The agent pulls by digest, so a manifest with another digest is refused, tag or not.
- The engine pulls a single image for any architecture, but its containers cannot start.
- Where Docker Hub says that no pull is left, none is tried.
- Credentials are sent by TLS only, except to this machine, whose certificates are verified too.
- Of proxies, the engine knows https:// and socks5:// as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import quote

from batchreg import registry_login
from batchreg.registry import answers, manifests, problems
from batchreg.registry.access import Access
from batchreg.registry.client import RegistryClient, Response
from batchreg.registry.images import Image
from batchreg.registry.logins import Credentials
from batchreg.registry.manifests import Entry, Manifest
from batchreg.registry.problems import Problem

HUB_ADDRESS = "registry-1.docker.io"
MOST_PAGES = 5  # of a thousand tags each


def host_of(image: Image) -> str:
    """Return the host that answers for the image's registry."""
    return HUB_ADDRESS if image.on_hub else image.registry


def log_in(
    registry: Image, credentials: Credentials, client: RegistryClient
) -> tuple[str, dict[str, str]]:
    """Do what `docker login` does; return text and details as `PullCheck.run` does."""
    _refuse_misspelt(registry)
    access = Access(host_of(registry), _called(registry), "", credentials, client)
    access.find()
    if access.odd:
        raise access.odd
    if not access.authorization:
        return "requires no credentials", {}
    if not access.accepts_credentials():
        raise problems.wrong_credentials(access.where)
    return "accepts these credentials", {}


class PullCheck:
    """The pull of an image with credentials or, without, an anonymous one."""

    def __init__(
        self, image: Image, credentials: Credentials | None, client: RegistryClient
    ) -> None:
        self.image, self.credentials = image, credentials
        self.where = _called(image)
        official = image.on_hub and "/" not in image.path
        self.repository = f"library/{image.path}" if official else image.path
        self.access = Access(host_of(image), self.where, self.repository, credentials, client)

    def run(self, architectures: Collection[str]) -> tuple[str, dict[str, str]]:
        """Return the text and the details of a success; raises Problem for anything else."""
        _refuse_misspelt(self.image)
        self.access.find()
        response = self._manifest()
        found = self._platforms(_read(response), architectures)
        left = answers.pulls_left(response.headers)
        details = {"architectures": ", ".join(found)}
        facts = [details["architectures"] or "architecture unknown", self._how()]
        if left:
            details["remaining"] = left
            facts.append(f"{left} pulls left")
        return ", ".join(facts), details

    def _how(self) -> str:
        if not self.credentials:
            return "without credentials"
        return "with these credentials" if self.access.authorization else "no credentials required"

    def _platforms(self, manifest: Manifest, architectures: Collection[str]) -> list[str]:
        """Return the platforms that there is an image for; Problem if one is missing or broken."""
        if manifest.entries is None:
            platform = self._platform(manifest)
            found = [platform] if platform else []
            missing = [name for name in architectures if not manifests.runs(platform, name)]
            chosen = list[Entry]()
        else:
            found = manifests.available(manifest.entries)
            missing = [name for name in architectures if name not in found]
            chosen = manifests.chosen(manifest.entries, architectures)
        if missing:
            raise problems.wrong_architecture(found, sorted(missing))
        for entry in chosen:
            self._platform(_read(self._by_digest(entry.digest)))
        return found

    def _manifest(self) -> Response:
        """Return the response with the image's manifest or index, asked for as the engine does.

        The engine resolves a tag with HEAD, or with GET if HEAD does not name the digest. Docker
        Hub counts every GET of a manifest as a pull, and no HEAD
        (docs.docker.com/docker-hub/usage/pulls).
        """
        if self.image.digest:
            return self._by_digest(self.image.digest)
        tag = self.image.tag or "latest"
        found = self.access.get(f"manifests/{tag}", "HEAD", manifests.ACCEPT)
        if found.success and answers.pulls_left(found.headers).startswith("0 "):
            raise self.access.limited(found)
        digest = found.headers["Docker-Content-Digest"]
        if not found.success or not digest:
            found = self.access.get(f"manifests/{tag}", "GET", manifests.ACCEPT)
            if not found.success:
                raise self._refusal(found)
            digest = found.headers["Docker-Content-Digest"] or manifests.digest_of(found.body)
        told = found.headers["Content-Type"] and found.headers["Content-Length"] is not None
        if not told or not manifests.DIGEST.fullmatch(digest):
            raise self.access.odd or problems.mislabeled()
        return self._by_digest(digest)

    def _by_digest(self, digest: str) -> Response:
        response = self.access.get(f"manifests/{digest}", "GET", manifests.ACCEPT)
        if response.status == 404 and digest != self.image.digest:
            raise self.access.odd or problems.incomplete(self.where, self.repository)
        if not response.success:
            raise self._refusal(response)
        if response.html:
            raise self.access.refusal(response)
        if manifests.digest_of(response.body) != digest:
            raise problems.damaged(self.where, self.repository)
        return response

    def _platform(self, manifest: Manifest) -> str:
        """Return the platform in an image's configuration, which many registries keep elsewhere."""
        response = self.access.get(f"blobs/{quote(manifest.configuration, ':')}")
        if response.status == 404:
            raise problems.incomplete(self.where, self.repository)
        if response.status == 403 and self.access.client.origin(
            response.url
        ) != self.access.client.origin(self.access.base):
            raise problems.content_refused(response.host, self.where)
        if not response.success:
            raise self._refusal(response)
        found = manifests.platform_of(response.body, manifest.layers)
        if found is None or manifests.digest_of(response.body) != manifest.configuration:
            damaged = problems.damaged(self.where, self.repository)
            raise self.access.trouble(response) if response.html else damaged
        return found

    def _refusal(self, response: Response) -> Problem:
        """Say why there is no manifest."""
        gone = response.status == 404 and not self.access.odd
        return self._missing() if gone else self.access.refusal(response)

    def _missing(self) -> Problem:
        """Say what there is instead of the tag, as far as the registry tells."""
        try:
            tags = self._tags()
        except Problem as problem:
            if problem.cause == "no-repository":
                return problem
            tags = []  # that the tag is missing is known, and is the better news
        return answers.missing_tag(self.image, self.where, self.repository, tags)

    def _tags(self) -> list[str]:
        tags: list[str] = []
        path = "tags/list?n=1000"
        for _ in range(MOST_PAGES):
            response = self.access.get(path)
            if response.status == 404:
                raise problems.no_repository(self.where, self.repository)
            if response.status != 200:
                break
            tags += answers.tags(response.json())
            link = response.headers["Link"] or ""
            following = re.search(r'<[^>]*\?([^>#]*)>\s*;\s*rel="?next', link)
            if not following:
                break
            path = f"tags/list?{following[1]}"
        return tags


def _called(image: Image) -> str:
    """Return what people call the image's registry."""
    return "Docker Hub" if image.on_hub else image.registry


def _read(response: Response) -> Manifest:
    kind = (response.headers["Content-Type"] or "").partition(";")[0].strip().lower()
    return manifests.parse(kind, response.body)


def _refuse_misspelt(image: Image) -> None:
    """Refuse hosts for which the ECS agent finds no credentials, although it has some."""
    registry, name = image.registry, image.name
    if not image.on_hub and registry_login.HUB_HOST.fullmatch(registry.lower()):
        path = re.sub(r"^(r|repository/docker)/", "", name.partition("/")[2])
        raise problems.hub_misspelt(registry, path)
    if registry != registry.lower():
        fixed = name.replace(registry, registry.lower(), 1)
        raise problems.host_in_capitals(registry, fixed)
