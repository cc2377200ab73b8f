"""What the tests of `batchreg.registry` share: a user, her images, and a check of one of them."""

from __future__ import annotations

from registry_server import RegistryServer, index

from batchreg.registry import check as registry
from batchreg.registry.check import Verdict
from batchreg.registry.images import parse
from batchreg.registry.logins import Credentials

PASSWORD = "canary/4711+x=="
ADA = Credentials("ada", PASSWORD)
IMAGES = {
    "lab/align": {
        "3": index("linux/amd64", "linux/arm64/v8", "unknown/unknown"),
        "3.1": index("linux/amd64"),
    }
}
HUB_LIMIT = {"ratelimit-limit": "200;w=21600", "ratelimit-remaining": "87;w=21600"}


def check(
    server: RegistryServer,
    name: str = "lab/align:3",
    credentials: Credentials | None = ADA,
    **options: object,
) -> Verdict:
    return registry.check(parse(f"{server.host}/{name}"), credentials, **options)


def says(verdict: Verdict, cause: str, *words: str) -> bool:
    """Return True if the verdict has this cause, and a text of one line with these words."""
    assert verdict.cause == cause, verdict
    assert verdict.ok == (cause == "ok")
    assert len(verdict.text.splitlines()) == 1
    for word in words:
        assert word in verdict.text, verdict.text
    return True
