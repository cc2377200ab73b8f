"""Pull an image as the Docker Engine would, up to where the layers would come.

It speaks the OCI distribution API (github.com/opencontainers/distribution-spec) and to its token
servers (distribution.github.io/distribution/spec/auth/token).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from batchreg import registry_login
from batchreg.registry import answers as manifests
from batchreg.registry.client import Answer, Failed, RegistryClient, basic
from batchreg.registry.images import Image

if TYPE_CHECKING:
    from batchreg.registry.check import Credentials

HUB_ADDRESS = "registry-1.docker.io"
MOST_PAGES = 5  # of a thousand tags each


def host_of(image: Image) -> str:
    """Return where the image's registry is spoken to."""
    return HUB_ADDRESS if image.on_hub else image.registry


def _refuse_misspelt(image: Image) -> None:
    """Refuse hosts for which the ECS agent finds no login, although one is there."""
    if not image.on_hub and registry_login.HUB_HOST.fullmatch(image.registry.lower()):
        name = re.sub(r"^(r|repository/docker)/", "", image.name.partition("/")[2])
        raise Failed(
            "hub-misspelt",
            f"{image.registry} is not what Docker Hub's images are called "
            f"by, so they get no login: write {name}.",
        )
    if image.registry != image.registry.lower():
        raise Failed(
            "host-case",
            f"The ECS agent has no login for {image.registry} in capitals: "
            f"write {image.name.replace(image.registry, image.registry.lower(), 1)}.",
        )


class Pull:
    """A pull, up to where the layers would come."""

    def __init__(self, image: Image, login: Credentials | None, talk: RegistryClient) -> None:
        self.image, self.login, self.talk = image, login, talk
        self.where = "Docker Hub" if image.on_hub else image.registry
        official = image.on_hub and image.path and "/" not in image.path
        self.repository = f"library/{image.path}" if official else image.path
        self.host = host_of(image)
        self.base = ""
        self.authorization = ""
        self.bearer: Mapping[str, str] = {}  # how the registry says that a token is to be had

    def run(self, wanted: Collection[str]) -> tuple[str, dict[str, str]]:
        """Return the text and the details of a success; raises Failed for all else."""
        _refuse_misspelt(self.image)
        self._find()
        # Docker Hub counts every GET of a manifest as a pull, and no HEAD
        # (docs.docker.com/docker-hub/usage/pulls).
        head = self._manifest("HEAD")
        if head.status in (401, 403, 404, 429):
            raise self._refusal(head)
        if manifests.pulls_left(head.headers).get("left") == "0":
            raise self._limited(head)
        manifest = self._manifest("GET")
        if manifest.status != 200 or manifest.html:
            raise self._refusal(manifest)
        platforms = manifests.platforms(manifest.json(), self._config)
        details = {"architectures": ", ".join(platforms)}
        missing = sorted(set(wanted) - set(platforms)) if platforms else []
        if missing:
            raise manifests.wrong_architecture(platforms, missing)
        rate = manifests.pulls_left(manifest.headers)
        if rate:
            details["remaining"] = rate["text"]
        how = (
            ("with this login" if self.authorization else "no login asked for")
            if (self.login)
            else "without a login"
        )
        pulls = f"{rate['text']} pulls left" if rate else ""
        return ", ".join(
            filter(None, [details["architectures"] or "architecture not told", how, pulls])
        ), details

    def log_in(self) -> tuple[str, dict[str, str]]:
        """Do what `docker login` does; without a path in the image, no repository is asked for."""
        _refuse_misspelt(self.image)
        self._find()
        return ("takes this login" if self.authorization else "asks for no login"), {}

    def _find(self) -> None:
        """Find the registry, with TLS or, on this machine, without, and log in if it asks for it.

        This machine is asked without TLS first: no login goes along, and a server that speaks no
        TLS may wait for ever for the rest of what it takes for a request.
        """
        failure = None
        for scheme in ("http", "https") if self.talk.local else ("https",):
            self.base = f"{scheme}://{self.host}/v2/"
            try:
                answer = self.talk.ask("GET", self.base)
            except Failed as failed:
                if failed.details.get("why") == "timeout":
                    raise
                failure = failure if failure and failed.details.get("why") == "plain" else failed
                continue
            if answer.status == 401:
                self._log_in(answer)
                return
            if answer.status == 200 and not answer.html:
                return
            failure = (
                self._blocked()
                if answer.status == 403 and not answer.html
                else (self._trouble(answer))
            )
        assert failure
        raise failure

    def _manifest(self, method: str) -> Answer:
        reference = self.image.digest or self.image.tag or "latest"
        return self._get(f"manifests/{reference}", method, manifests.ACCEPT)

    def _config(self, digest: str) -> dict[str, Any]:
        """Return an image's configuration, which many registries keep elsewhere."""
        answer = self._get(f"blobs/{quote(digest, ':')}")
        if answer.status == 404:
            raise Failed(
                "incomplete",
                f"{self.where} has lost a part of {self.repository}: push the image again.",
            )
        if answer.status != 200 or answer.html:
            raise self._refusal(answer)
        return answer.json()

    def _get(self, path: str, method: str = "GET", accept: str = "*/*") -> Answer:
        url = f"{self.base}{self.repository}/{path}"
        answer = self.talk.ask(method, url, {"Accept": accept}, login=self.authorization)
        if answer.status == 401 and not self.authorization:
            self._log_in(answer)
            answer = self.talk.ask(method, url, {"Accept": accept}, login=self.authorization)
        return answer

    def _log_in(self, answer: Answer) -> None:
        """Do what the registry asks for; raises Failed where the login does not count."""
        offers = manifests.challenges(answer.headers.get_all("WWW-Authenticate") or [])
        self.bearer = offers.get("bearer", {})
        if self.bearer and self.repository:
            token = self._token(f"repository:{self.repository}:pull")
            self.authorization = f"Bearer {token}"
        elif self.bearer or "basic" in offers:
            if not self.login:
                raise self._denied()
            self.authorization = self._basic()
            if not self._login_works():
                raise self._wrong_login()
        else:
            raise Failed(
                "not-a-registry",
                f"{self.where} asks for a login in a way that Docker "
                "does not know: check the registry's host.",
            )

    def _basic(self) -> str:
        return basic(f"{self.login.username}:{self.login.password}") if self.login else ""

    def _token(self, scope: str) -> str:
        """Get a token for the scope or, as `docker login` does, for none, and then "" for a no."""
        account = self.login.username.encode("utf-8", "surrogateescape") if self.login else b""
        query = {"service": self.bearer.get("service", ""), "scope": scope, "account": account}
        realm = self.bearer.get("realm", "")
        url = f"{realm}{'&' if '?' in realm else '?'}" + urlencode(
            {name: value for name, value in query.items() if value}
        )
        answer = self.talk.ask("GET", url, login=self._basic())
        if answer.status in (401, 403) and not scope:
            return ""
        if answer.status == 401 and self.login:
            raise self._wrong_login()
        # GHCR and GitLab say 403 for a wrong login and for a missing right alike.
        if answer.status in (401, 403):
            raise self._denied()
        fields = answer.json()
        token = fields.get("token") or fields.get("access_token")
        if answer.status != 200 or not isinstance(token, str):
            raise self._trouble(answer)
        if not re.fullmatch("[!-~]+", token):
            raise Failed(
                "registry-error",
                f"{answer.host} gives a token that is none: ask who runs the registry.",
            )
        return token

    def _login_works(self) -> bool:
        """Tell whether `docker login` would succeed.

        Harbor gives a token for a wrong login as well, and then refuses it
        (github.com/goharbor/harbor/issues/11632).
        """
        authorization = self._basic()
        if self.bearer:
            token = self._token("")
            if not token:
                return False
            authorization = f"Bearer {token}"
        answer = self.talk.ask("GET", self.base, login=authorization)
        if answer.status == 429 or answer.status >= 500:
            raise self._trouble(answer)
        return answer.status not in (401, 403)

    def _refusal(self, answer: Answer) -> Failed:
        """Say why there is no manifest."""
        if answer.status in (401, 403) and not answer.html:
            offers = manifests.challenges(answer.headers.get_all("WWW-Authenticate") or [])
            if offers.get("bearer", {}).get("error") == "invalid_token":
                return Failed(
                    "registry-error",
                    f"{self.where} refuses the token of its own token "
                    "server: ask who runs it to compare their clocks and certificates.",
                )
            return self._denied()
        return self._missing() if answer.status == 404 else self._trouble(answer)

    def _wrong_login(self) -> Failed:
        return Failed(
            "wrong-login",
            f"{self.where} refuses this login: check the user name and "
            "the password, or make a new token.",
        )

    def _denied(self) -> Failed:
        if not self.login:
            return Failed(
                "login-needed",
                f"{self.where} does not let everybody pull "
                f"{self.repository}, or has no such repository: give a login, or check "
                "the name.",
            )
        if not self._login_works():
            return self._wrong_login()
        return Failed(
            "no-right",
            f"{self.where} takes this login, but does not let it pull "
            f"{self.repository}, or has no such repository: give it the right to read "
            "there, or check the name.",
        )

    def _blocked(self) -> Failed:
        return Failed(
            "blocked",
            f"{self.where} refuses this network before any login (HTTP 403): "
            "ask who runs it to let this address in.",
        )

    def _limited(self, answer: Answer) -> Failed:
        rate = manifests.pulls_left(answer.headers)
        left = f" ({rate['text']} left)" if rate else ""
        seconds = manifests.retry_after(answer.headers)
        when = f"try again in {manifests.duration(seconds)}" if seconds else "try again later"
        step = when if self.login else f"{when}, or give a login, which has a limit of its own"
        who = "login" if self.login else "network"
        details = {"remaining": rate.get("text", ""), "retry_after": str(seconds or "")}
        return Failed(
            "rate-limited",
            f"{self.where} lets this {who} pull no more for now{left}: {step}.",
            **{name: value for name, value in details.items() if value},
        )

    def _trouble(self, answer: Answer) -> Failed:
        """Say what is wrong with an answer that no healthy registry gives."""
        if answer.status == 429:
            return self._limited(answer)
        if answer.status >= 500:
            return Failed(
                "registry-error",
                f"{answer.host} has trouble (HTTP {answer.status}): "
                "try again later, or ask who runs it.",
            )
        what = "a web page" if answer.html else f"HTTP {answer.status}"
        return Failed(
            "not-a-registry",
            f"{answer.host} answers with {what}, as no registry does: check the registry's host.",
        )

    def _missing(self) -> Failed:
        """Say what there is instead of the tag, as far as the registry tells."""
        try:
            tags = self._tags()
        except Failed as failure:
            if failure.cause == "no-repository":
                return failure
            tags = []  # what is missing is known, and is the better news
        return manifests.missing_tag(self.image, self.where, self.repository, tags)

    def _tags(self) -> list[str]:
        tags: list[str] = []
        path = "tags/list?n=1000"
        for _ in range(MOST_PAGES):
            answer = self._get(path)
            if answer.status == 404:
                raise Failed(
                    "no-repository",
                    f"{self.where} has no repository {self.repository}, "
                    "or hides it from this login: check the name.",
                )
            if answer.status != 200:
                break
            tags += manifests.tags(answer.json())
            link = answer.headers["Link"] or ""
            following = re.search(r'<[^>]*\?([^>#]*)>\s*;\s*rel="?next', link)
            if not following:
                break
            path = f"tags/list?{following[1]}"
        return tags
