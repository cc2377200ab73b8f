"""Do what the Docker Engine does to pull an image, up to where the layers would come.

Sources: the OCI distribution API (github.com/opencontainers/distribution-spec), and for token
servers distribution.github.io/distribution/spec/auth/token.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from batchreg import registry_login
from batchreg.registry import answers, problems
from batchreg.registry.client import RegistryClient, Response, basic
from batchreg.registry.images import Image
from batchreg.registry.logins import Credentials
from batchreg.registry.problems import Problem

HUB_ADDRESS = "registry-1.docker.io"
MOST_PAGES = 5  # of a thousand tags each


def host_of(image: Image) -> str:
    """Return the host that answers for the image's registry."""
    return HUB_ADDRESS if image.on_hub else image.registry


class PullCheck:
    """The pull of an image with credentials or, without, an anonymous one."""

    def __init__(
        self, image: Image, credentials: Credentials | None, client: RegistryClient
    ) -> None:
        self.image, self.credentials, self.client = image, credentials, client
        self.where = "Docker Hub" if image.on_hub else image.registry
        official = image.on_hub and image.path and "/" not in image.path
        self.repository = f"library/{image.path}" if official else image.path
        self.host = host_of(image)
        self.base = ""
        self.authorization = ""
        self.bearer: Mapping[str, str] = {}  # what the registry says about its token server

    def run(self, architectures: Collection[str]) -> tuple[str, dict[str, str]]:
        """Return the text and the details of a success; raises Problem for anything else."""
        self._refuse_misspelt()
        self._find()
        # Docker Hub counts every GET of a manifest as a pull, and no HEAD
        # (docs.docker.com/docker-hub/usage/pulls).
        head = self._manifest("HEAD")
        if head.status in (401, 403, 404, 429):
            raise self._refusal(head)
        if answers.pulls_left(head.headers).startswith("0 "):
            raise self._limited(head)
        manifest = self._manifest("GET")
        if manifest.status != 200 or manifest.html:
            raise self._refusal(manifest)
        platforms = answers.platforms(manifest.json(), self._config)
        missing = sorted(set(architectures) - set(platforms)) if platforms else []
        if missing:
            raise problems.wrong_architecture(platforms, missing)
        left = answers.pulls_left(manifest.headers)
        details = {"architectures": ", ".join(platforms)}
        facts = [details["architectures"] or "architecture unknown", self._with()]
        if left:
            details["remaining"] = left
            facts.append(f"{left} pulls left")
        return ", ".join(facts), details

    def log_in(self) -> tuple[str, dict[str, str]]:
        """Do what `docker login` does: ask for no repository."""
        self._refuse_misspelt()
        self._find()
        return (
            "accepts these credentials" if self.authorization else "requires no credentials"
        ), {}

    def _with(self) -> str:
        if not self.credentials:
            return "without credentials"
        return "with these credentials" if self.authorization else "no credentials required"

    def _refuse_misspelt(self) -> None:
        """Refuse hosts for which the ECS agent finds no credentials, although it has some."""
        registry, name = self.image.registry, self.image.name
        if not self.image.on_hub and registry_login.HUB_HOST.fullmatch(registry.lower()):
            path = re.sub(r"^(r|repository/docker)/", "", name.partition("/")[2])
            raise problems.hub_misspelt(registry, path)
        if registry != registry.lower():
            fixed = name.replace(registry, registry.lower(), 1)
            raise problems.host_in_capitals(registry, fixed)

    def _find(self) -> None:
        """Find the registry, with TLS or, on this machine, without; log in if it asks for it.

        This machine is asked without TLS first: no credentials are sent yet, and a server that
        does not speak TLS may wait forever for the rest of what it takes for a request.
        """
        problem = None
        for scheme in ("http", "https") if self.client.local else ("https",):
            self.base = f"{scheme}://{self.host}/v2/"
            try:
                response = self.client.ask("GET", self.base)
            except Problem as found:
                if found.details.get("why") == "timeout":
                    raise
                problem = problem if problem and found.details.get("why") == "plain" else found
                continue
            if response.status == 401:
                self._log_in(response)
                return
            if response.status == 200 and not response.html:
                return
            blocked = response.status == 403 and not response.html
            problem = problems.blocked(self.where) if blocked else self._trouble(response)
        assert problem
        raise problem

    def _manifest(self, method: str) -> Response:
        reference = self.image.digest or self.image.tag or "latest"
        return self._get(f"manifests/{reference}", method, answers.ACCEPT)

    def _config(self, digest: str) -> dict[str, Any]:
        """Return an image's configuration, which many registries keep elsewhere."""
        response = self._get(f"blobs/{quote(digest, ':')}")
        if response.status == 404:
            raise problems.incomplete(self.where, self.repository)
        if response.status != 200 or response.html:
            raise self._refusal(response)
        return response.json()

    def _get(self, path: str, method: str = "GET", accept: str = "*/*") -> Response:
        url, headers = f"{self.base}{self.repository}/{path}", {"Accept": accept}
        response = self.client.ask(method, url, headers, authorization=self.authorization)
        if response.status == 401 and not self.authorization:
            self._log_in(response)
            response = self.client.ask(method, url, headers, authorization=self.authorization)
        return response

    # --- logging in ---

    def _log_in(self, response: Response) -> None:
        """Do what the registry asks for; raises Problem if the credentials are not accepted."""
        offers = answers.challenges(response.headers.get_all("WWW-Authenticate") or [])
        self.bearer = offers.get("bearer", {})
        if self.bearer and self.repository:
            token = self._token(f"repository:{self.repository}:pull")
            self.authorization = f"Bearer {token}"
        elif self.bearer or "basic" in offers:
            if not self.credentials:
                raise self._denied()
            self.authorization = self._basic()
            if not self._accepted():
                raise problems.wrong_credentials(self.where)
        else:
            raise problems.unknown_scheme(self.where)

    def _basic(self) -> str:
        given = self.credentials
        return basic(f"{given.username}:{given.password}") if given else ""

    def _token(self, scope: str) -> str:
        """Get a token for the scope or, as `docker login` does, for none, and then "" for a no."""
        given = self.credentials
        account = given.username.encode("utf-8", "surrogateescape") if given else b""
        query = {"service": self.bearer.get("service", ""), "scope": scope, "account": account}
        realm = self.bearer.get("realm", "")
        url = f"{realm}{'&' if '?' in realm else '?'}" + urlencode(
            {name: value for name, value in query.items() if value}
        )
        response = self.client.ask("GET", url, authorization=self._basic())
        if response.status in (401, 403) and not scope:
            return ""
        if response.status == 401 and self.credentials:
            raise problems.wrong_credentials(self.where)
        # GHCR and GitLab say 403 for wrong credentials and for a missing permission alike.
        if response.status in (401, 403):
            raise self._denied()
        fields = response.json()
        token = fields.get("token") or fields.get("access_token")
        if response.status != 200 or not isinstance(token, str):
            raise self._trouble(response)
        if not re.fullmatch("[!-~]+", token):
            raise problems.invalid_token(response.host)
        return token

    def _accepted(self) -> bool:
        """Tell whether `docker login` would succeed.

        Harbor gives a token for wrong credentials as well, and then refuses it
        (github.com/goharbor/harbor/issues/11632).
        """
        authorization = self._basic()
        if self.bearer:
            token = self._token("")
            if not token:
                return False
            authorization = f"Bearer {token}"
        response = self.client.ask("GET", self.base, authorization=authorization)
        if response.status == 429 or response.status >= 500:
            raise self._trouble(response)
        return response.status not in (401, 403)

    # --- what went wrong ---

    def _refusal(self, response: Response) -> Problem:
        """Say why there is no manifest."""
        if response.status in (401, 403) and not response.html:
            offers = answers.challenges(response.headers.get_all("WWW-Authenticate") or [])
            if offers.get("bearer", {}).get("error") == "invalid_token":
                return problems.token_rejected(self.where)
            return self._denied()
        return self._missing() if response.status == 404 else self._trouble(response)

    def _denied(self) -> Problem:
        if not self.credentials:
            return problems.credentials_needed(self.where, self.repository)
        if not self._accepted():
            return problems.wrong_credentials(self.where)
        return problems.not_permitted(self.where, self.repository)

    def _limited(self, response: Response) -> Problem:
        return problems.rate_limited(
            self.where,
            answers.pulls_left(response.headers),
            answers.retry_after(response.headers),
            anonymous=not self.credentials,
        )

    def _trouble(self, response: Response) -> Problem:
        """Say what is wrong with a response that no healthy registry gives."""
        if response.status == 429:
            return self._limited(response)
        if response.status >= 500:
            return problems.failing(response.host, response.status)
        what = "a web page" if response.html else f"HTTP {response.status}"
        return problems.not_a_registry(response.host, what)

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
            response = self._get(path)
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
