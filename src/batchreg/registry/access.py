"""How a registry is asked: by GET /v2/ it says whom to log in with, as it does to Docker.

Sources: the OCI distribution API (github.com/opencontainers/distribution-spec), and for token
servers distribution.github.io/distribution/spec/auth/token. Docker's own reading of both is in
github.com/distribution/distribution, registry/client.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from batchreg.registry import answers, problems
from batchreg.registry.client import RegistryClient, Response, basic
from batchreg.registry.logins import Credentials
from batchreg.registry.problems import Problem


class Access:
    """Requests to one repository, with the authorization that the registry asks for.

    `where`: what people call the registry. `repository`: empty to log in only, as `docker login`
    does. The engine logs in where the registry asks it to at /v2/, and does not mind any other
    answer: `odd` is what is wrong with that. It sends its authorization to URLs below the one that
    asked, after redirects, and to no others.
    """

    def __init__(
        self,
        host: str,
        where: str,
        repository: str,
        credentials: Credentials | None,
        client: RegistryClient,
    ) -> None:
        self.host, self.where, self.repository = host, where, repository
        self.credentials, self.client = credentials, client
        self.base = ""
        self.authorization = ""
        self.bearer: Mapping[str, str] = {}  # what the registry says about its token server
        self.odd: Problem | None = None
        self._asked: Response | None = None  # what it said at /v2/

    def find(self) -> None:
        """Find the registry, with TLS or, on this machine, without; log in if it asks for it.

        This machine is asked without TLS first: no credentials are sent yet, and a server that
        does not speak TLS may wait forever for the rest of what it takes for a request.
        """
        problem = None
        for scheme in ("http", "https") if self.client.local else ("https",):
            self.base = f"{scheme}://{self.host}/v2/"
            try:
                response = self.client.ask("GET", self.base)
                if scheme == "https" or response.status != 400:
                    break
                problem = self.trouble(response)  # of a server with TLS, to a request without
            except Problem as failure:
                if failure.details.get("why") == "timeout":
                    raise
                if not problem or failure.details.get("why") != "plain":
                    problem = failure
        else:
            assert problem
            raise problem
        self._asked = response
        if response.status == 401:
            self._log_in(response)
        elif response.status == 403 and not response.html:
            self.odd = problems.blocked(self.where)
        elif response.status != 200 or response.html:
            self.odd = self.trouble(response)

    def get(self, path: str, method: str = "GET", accept: str = "*/*") -> Response:
        """Ask for something of the repository."""
        return self._ask(
            f"{self.base}{self.repository}/{path}", self.authorization, method, {"Accept": accept}
        )

    def accepts_credentials(self) -> bool:
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
        response = self._ask(self.base, authorization)
        if response.status == 429 or response.status >= 500:
            raise self.trouble(response)
        return response.status not in (401, 403)

    def _ask(
        self,
        url: str,
        authorization: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        root = self._asked.url if self._asked else ""
        return self.client.ask(method, url, headers, authorization=authorization, root=root)

    # --- logging in ---

    def _log_in(self, response: Response) -> None:
        """Do what the registry asks for; raises Problem if it gives no token.

        Where it offers both ways the engine does both, and its requests have the second.
        """
        offers = answers.challenges(response.headers.get_all("WWW-Authenticate") or [])
        if "bearer" in offers:
            self.bearer = offers["bearer"]
            scope = f"repository:{self.repository}:pull" if self.repository else ""
            self.authorization = f"Bearer {self._token(scope)}"
        if "basic" in offers:
            if not self.credentials:
                raise self._denied()
            self.bearer = {}
            self.authorization = self._basic()
        if not offers.keys() & {"bearer", "basic"}:
            self.odd = problems.unknown_scheme(self.where)

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
        if not response.success:
            raise self.trouble(response)
        try:
            return answers.token(response.body)
        except (ValueError, RecursionError):
            raise (
                self.trouble(response) if response.html else problems.invalid_token(response.host)
            ) from None

    # --- what went wrong ---

    def refusal(self, response: Response) -> Problem:
        """Say why the registry does not give what was asked for.

        An odd answer to GET /v2/ is the better explanation.
        """
        if self.odd:
            return self.odd
        if response.status not in (401, 403) or response.html:
            return self.trouble(response)
        offers = answers.challenges(response.headers.get_all("WWW-Authenticate") or [])
        if offers.get("bearer", {}).get("error") == "invalid_token":
            return problems.token_rejected(self.where)
        asked = self._asked
        if asked and asked.status == 200:
            return problems.not_asked(self.where)
        if asked and self.client.origin(asked.url) != self.client.origin(self.base):
            return problems.moved(self.where, asked.host)
        return self._denied()

    def _denied(self) -> Problem:
        if not self.credentials:
            return problems.credentials_needed(self.where, self.repository)
        if not self.accepts_credentials():
            return problems.wrong_credentials(self.where)
        return problems.not_permitted(self.where, self.repository)

    def limited(self, response: Response) -> Problem:
        return problems.rate_limited(
            self.where,
            answers.pulls_left(response.headers),
            answers.retry_after(response.headers),
            anonymous=not self.credentials,
        )

    def trouble(self, response: Response) -> Problem:
        """Say what is wrong with a response that no healthy registry gives."""
        if response.status == 429:
            return self.limited(response)
        if response.status >= 500:
            seconds = answers.retry_after(response.headers)
            return problems.failing(response.host, response.status, seconds)
        what = "a web page" if response.html else f"HTTP {response.status}"
        return problems.not_a_registry(response.host, what)
