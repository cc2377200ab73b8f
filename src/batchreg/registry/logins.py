"""Credentials, and the registries that a user wants them for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchreg.errors import BatchregError
from batchreg.registry.names import address_of, host_of, key_of

PROMPT, DOCKER, ENV = "prompt", "docker-config", "env:"


@dataclass(frozen=True)
class Credentials:
    """A user name and a password, which no traceback shows; either is empty if it is not known."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class RegistrySpec:
    """A registry that the stack should have. `source`: "prompt", "docker-config" or "env:NAME".

    `username` is empty if it comes from where the password does.
    """

    url: str
    username: str = ""
    source: str = PROMPT

    @property
    def key(self) -> str:
        return key_of(self.url)

    @classmethod
    def parse(cls, text: str) -> RegistrySpec:
        """Read "ghcr.io" or "ghcr.io,username=lab,password=env:GHCR_TOKEN"."""
        url, *fields = text.split(",")
        values = dict(field.partition("=")[::2] for field in fields)
        source = values.pop("password", PROMPT)
        spec = cls(address_of(url), values.pop("username", ""), source)
        if values:
            raise BatchregError(
                "--registry has an unknown field.",
                f"Give username and password only, not {', '.join(values)}.",
            )
        if source not in (PROMPT, DOCKER) and not re.fullmatch(
            f"{ENV}[A-Za-z_][A-Za-z0-9_]*", source
        ):
            # Not quoted: it may be the password itself.
            raise BatchregError(
                f"The password of {host_of(spec.key)} cannot be part of --registry.",
                f"Write password={PROMPT}, password={DOCKER} or password={ENV}NAME, with the name "
                "of an environment variable.",
            )
        return spec


def merged(specs: Sequence[RegistrySpec]) -> list[RegistrySpec]:
    """Return one entry per registry; BatchregError if two entries contradict each other."""
    found: dict[str, RegistrySpec] = {}
    for one in specs:
        known = found.setdefault(one.key, one)
        if (known.username, known.source) != (one.username, one.source):
            raise BatchregError(
                f"{host_of(one.key)} is named twice, with different credentials.",
                "An instance can use one. Leave one out.",
            )
    return list(found.values())
