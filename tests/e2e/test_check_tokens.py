"""`batchreg check` and the Docker Engine at Debian's registry, with tokens of a server of our own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from behaviors import MACHINE, pulled
from lab.parts import Registry
from real_parts import PASSWORD, require
from token_server import TokenServer

from batchreg.registry import check as registry
from batchreg.registry.images import parse
from batchreg.registry.logins import Credentials

ADA = Credentials("ada", PASSWORD)


@dataclass(frozen=True)
class Case:
    """An image, who asks for it, what is wrong with the tokens, and what `check` says."""

    name: str
    cause: str = "ok"
    image: str = "lab/align:3"
    credentials: Credentials | None = ADA
    tokens: dict[str, object] = field(default_factory=dict)


CASES = [
    Case("credentials with the permission"),
    Case("credentials without the permission", "no-right", "other/align:3"),
    Case("a wrong password", "wrong-login", credentials=Credentials("ada", "wrong")),
    Case("an unknown user", "wrong-login", credentials=Credentials("eve", PASSWORD)),
    Case("no credentials", "login-needed", credentials=None),
    Case("a public image without credentials", image="lab/open:3", credentials=None),
    Case("a public image with credentials", image="lab/open:3"),
    Case("a tag that is not there", "no-tag", "lab/align:4"),
    Case("a repository that is not there", "no-repository", "lab/none:3"),
    Case("permission to push alone", "no-right", tokens={"actions": ("push",)}),
    Case("permission to do anything", tokens={"actions": ("*",)}),
    Case("permission to pull and push", tokens={"actions": ("push", "pull")}),
    Case("a clock that is an hour late", "registry-error", tokens={"late": 3600}),
    Case("a clock that is an hour early", "registry-error", tokens={"late": -3600}),
    Case("tokens of another issuer", "registry-error", tokens={"issuer": "somebody"}),
    Case("tokens for another service", "registry-error", tokens={"audience": "something"}),
    Case("expires_in as a string", "registry-error", tokens={"more": {"expires_in": "60"}}),
    Case("a refresh token as well", tokens={"more": {"refresh_token": "x", "expires_in": 60}}),
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TokenServer, Registry]]:
    """A registry that takes the tokens of a token server; ada may pull two of three images."""
    require("registry", "engine")
    folder = tmp_path_factory.mktemp("tokens")
    with Registry("ada", "x", directory=folder / "registry") as filling:
        for name in ("lab/align", "lab/open", "other/align"):
            filling.push(name, "3")
    rights = {"ada": {"lab/align", "lab/open", "lab/none"}, "": {"lab/open"}}
    with (
        TokenServer(folder, {"ada": PASSWORD}, rights) as server,
        Registry("ada", "x", directory=folder / "registry", auth=server.auth) as registry,
    ):
        yield server, registry


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_check_agrees_with_the_engine_at_a_real_registry(tokens, engine, case):
    """The registry is real, and so are its refusals of tokens."""
    server, host = tokens
    usual = replace(server)
    vars(server).update(case.tokens)
    try:
        image = f"{host.host}/{case.image}"
        verdict = registry.check(parse(image), case.credentials, architectures=(MACHINE,))
        said = pulled(engine, image, case.credentials)
    finally:
        vars(server).update(vars(usual))
    assert verdict.cause == case.cause, verdict.text
    assert verdict.ok == (said == ""), (verdict.text, said)
