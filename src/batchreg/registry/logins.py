"""The registries of a stack, and where their logins come from."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batchreg.errors import BatchregError
from batchreg.registry_login import HUB, Refused, registry_key
from batchreg.render.settings import suffix

PROMPT, DOCKER, ENV = "prompt", "docker-config", "env:"

# Registries that people call by a name, which is no host.
NAMES = {
    "docker-hub": HUB,
    "dockerhub": HUB,
    "ghcr": "ghcr.io",
    "gitlab": "registry.gitlab.com",
    "quay": "quay.io",
}


@dataclass(frozen=True)
class RegistrySpec:
    """A registry that a stack shall have. `source`: "prompt", "docker-config" or "env:NAME"."""

    url: str
    username: str | None = None
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
        wanted = cls(address_of(url), values.pop("username", None) or None, source)
        if values:
            raise BatchregError(f"--registry knows username and password, not {', '.join(values)}.")
        if source not in (PROMPT, DOCKER) and not re.fullmatch(
            f"{ENV}[A-Za-z_][A-Za-z0-9_]*", source
        ):
            # Not quoted: somebody may have written the password itself.
            raise BatchregError(
                f"The password of {host_of(wanted.key)} comes from {PROMPT}, "
                f"{DOCKER} or {ENV}NAME, a variable's name: it never stands there "
                "itself."
            )
        return wanted


@dataclass(frozen=True)
class Credentials:
    """A user name and a password; None keeps what the stack has."""

    username: str | None = field(repr=False)
    password: str | None = field(repr=False)


def address_of(name: str) -> str:
    """Return the address of a registry that is given by its name, and any other text as it is."""
    return NAMES.get(name.strip().lower(), name.strip())


def key_of(url: str) -> str:
    """Return the ECS agent's key for a registry; BatchregError for what no image could match."""
    try:
        return str(registry_key(url))
    except Refused as refusal:
        text = str(refusal).removeprefix("registry_url").lstrip(": ")
        raise BatchregError(f"Registry: {text}.") from None


def host_of(key: str) -> str:
    """Return what people call the registry of a key."""
    return "Docker Hub" if key == HUB else key


def named(url: str) -> str:
    """Return what people call the registry at `url`; a text that is no address stays as it is."""
    try:
        return host_of(key_of(url))
    except BatchregError:
        return url


def merged(wanted: Sequence[RegistrySpec]) -> list[RegistrySpec]:
    """Return one entry a registry; BatchregError where two entries contradict each other."""
    found: dict[str, RegistrySpec] = {}
    for one in wanted:
        known = found.setdefault(one.key, one)
        if (known.username, known.source) != (one.username, one.source):
            raise BatchregError(
                f"{host_of(one.key)} is named twice, with different logins: an "
                "instance can use one. Leave one out."
            )
    return list(found.values())


def assign(wanted: Sequence[RegistrySpec], present: Mapping[int, str]) -> dict[int, RegistrySpec]:
    """Give each registry a slot: the one that it has in `present` ({slot: URL}), or a free one."""
    slots = {key_of(url): slot for slot, url in present.items()}
    free = (number for number in range(1, 1000) if number not in present)
    return {slots.get(one.key) or next(free): one for one in merged(wanted)}


def parameters(
    assigned: Mapping[int, RegistrySpec],
    present: Mapping[int, str],
    find: Callable[[RegistrySpec, bool], Credentials],
) -> dict[str, str]:
    """Return the template's parameters for the registries; what the stack keeps is left out.

    `find(wanted, new)` returns the login; of a registry that is not `new` it may be without values.
    """
    given: dict[str, str] = {}
    for slot, wanted in assigned.items():
        n = suffix(slot)
        if slot not in present:
            given[f"RegistryUrl{n}"] = wanted.url.strip()
        login = find(wanted, slot not in present)
        if login.username is not None:
            given[f"Username{n}"] = login.username
        if login.password is not None:
            given[f"Password{n}"] = login.password
    return given


def of_one(given: Mapping[str, str], present: Mapping[int, str]) -> dict[str, str]:
    """Move the login of --registry-url, --username and the password to the slot that is meant.

    Raises BatchregError where the stack has several registries and none of them is named.
    """
    names = ("RegistryUrl", "Username", "Password")
    mine = {name: given[name] for name in names if name in given}
    rest = {name: value for name, value in given.items() if name not in names}
    slots = list(present) or [1]
    if len(slots) > 1 and mine:
        key = key_of(given.get("RegistryUrl", HUB))
        slots = [slot for slot, url in present.items() if key_of(url) == key]
        if "RegistryUrl" not in given or not slots:
            hosts = ", ".join(host_of(key_of(url)) for url in present.values())
            raise BatchregError(
                f"The stack has several registries: name one of {hosts} with "
                "--registry-url, or list them all with --registry."
            )
        del mine["RegistryUrl"]
    return {**rest, **{name + suffix(slots[0]): value for name, value in mine.items()}}


def from_docker(wanted: RegistrySpec, folder: Path, *, seconds: float = 10) -> Credentials:
    """Return what `docker login` stored for a registry, from a credential helper if one has it.

    Source: docs.docker.com/reference/cli/docker/login/#credential-stores. The helper is asked as
    Docker asks it: the registry goes to its standard input, the login comes from its output.
    Raises BatchregError where there is none.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BatchregError(
            f"Cannot read {path}: {error.strerror}. Run docker login first."
        ) from None
    except ValueError:
        raise BatchregError(f"{path} is not JSON: run docker login anew.") from None
    helpers, auths = (
        config.get(name) or {} if isinstance(config, dict) else None
        for name in ("credHelpers", "auths")
    )
    if not isinstance(helpers, dict) or not isinstance(auths, dict):
        raise BatchregError(f"{path} is not as Docker writes it: run docker login anew.")
    spelt = [
        wanted.url,
        wanted.key,
        *filter(lambda name: _same(name, wanted.key), [*helpers, *auths]),
    ]
    for name in dict.fromkeys(spelt):
        helper = helpers.get(name) or config.get("credsStore")
        login = _from_helper(helper, name, seconds) if helper else _decoded(auths.get(name))
        if login:
            return login
    raise BatchregError(
        f"Docker has no login for {host_of(wanted.key)}: run docker login "
        f"{'' if wanted.key == HUB else wanted.key}".rstrip()
        + " first."
    )


def _same(name: str, key: str) -> bool:
    try:
        return bool(registry_key(name) == key)
    except Refused:
        return False


def _decoded(entry: object) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    if entry.get("identitytoken"):
        raise BatchregError(
            "Docker holds an identity token there, which the ECS agent cannot use: "
            "log in with an access token."
        )
    try:
        username, colon, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except (KeyError, TypeError, ValueError):
        return None
    return Credentials(username, password) if colon and username else None


def _from_helper(helper: str, name: str, seconds: float) -> Credentials | None:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=name, capture_output=True, text=True, timeout=seconds
        )
    except FileNotFoundError:
        raise BatchregError(
            f"Docker's credential helper {program} is not installed here."
        ) from None
    except subprocess.TimeoutExpired:
        raise BatchregError(
            f"{program} has not answered in {seconds:.0f} s: unlock it, then try again."
        ) from None
    try:
        answer = json.loads(done.stdout)
        username, password = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        return None  # "credentials not found in native keychain"
    if username == "<token>":
        raise BatchregError(
            f"{program} holds an identity token there, which the ECS agent cannot "
            "use: log in with an access token."
        )
    return Credentials(username, password) if username else None
