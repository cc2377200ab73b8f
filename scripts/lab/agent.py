"""How the Amazon ECS agent reads `/etc/ecs/ecs.config` and picks the login for an image.

Written from what amazon-ecs-agent 1.105.1 does, and from nothing of ours, so that it can judge
ours: ecs-init/docker/docker.go (the file), agent/dockerclient/dockerauth/dockerauth.go (the login).
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator
from typing import Any, NoReturn

# What Go's strings.TrimSpace takes off: not a byte-order mark, and not the control characters
# 0x1C to 0x1F, which Python's str.strip would take too.
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)

DOCKER_HUB_KEY = "index.docker.io/v1/"
DOCKER_HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")

# Of docker/api/types/registry.AuthConfig.
FIELDS = (
    "username",
    "password",
    "auth",
    "email",
    "serveraddress",
    "identitytoken",
    "registrytoken",
)

Login = dict[str, str]


class Ambiguous(Exception):
    """The agent's answer would depend on the random order of a Go map."""


def read_ecs_config(text: bytes) -> dict[str, str]:
    """Return the variables that ecs-init hands from the file to the agent."""
    # An invalid byte becomes U+FFFD on its way through the Engine API's JSON.
    lines = text.decode("utf-8", "replace").strip(SPACE).split("\n")
    pairs = (line.strip(SPACE).partition("=") for line in lines)
    return {name: value for name, equals, value in pairs if equals}


def auth_for(image: str, config: dict[str, str]) -> Login | None:
    """Return the login that the agent sends along when it pulls `image`; None is an anonymous pull.

    Raises Ambiguous where two starts of the same agent may answer differently.
    """
    logins = _logins(config)
    host = _host(image)
    if host in DOCKER_HUB_HOSTS:
        keys = {DOCKER_HUB_KEY}
    else:
        of_host = {key for key in logins if key.split("/", 1)[0] == host}
        # The agent starts from the key that is the bare host, else from whichever key of that host
        # its map yields first, even one of another path; a longer key that the image starts with
        # then takes its place.
        starts = {host} if host in of_host else of_host
        fitting = {key for key in of_host if image.startswith(key)}
        keys = {max([start, *fitting], key=len) for start in starts}
    answers = [login for key in keys for login in logins.get(key, [])]
    if any(answer != answers[0] for answer in answers):
        raise Ambiguous(f"{image}: one of {sorted(keys)}, at random")
    return (answers[0] or None) if answers else None


def _host(image: str) -> str:
    """Return the registry's host and port, `docker.io` where the image names none."""
    repository, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        repository = image
    host, slash, _ = repository.partition("/")
    is_host = slash and ("." in host or ":" in host or host == "localhost")
    return host if is_host else "docker.io"


def _logins(config: dict[str, str]) -> dict[str, list[Login]]:
    """Return each key without its scheme, with every login it may stand for."""
    # Only the type is trimmed, when the configuration is complete: agent/config/config.go.
    read = {"docker": _docker, "dockercfg": _dockercfg}.get(
        config.get("ECS_ENGINE_AUTH_TYPE", "").strip(SPACE)
    )
    if read is None:
        return {}
    try:
        entries = _entries(config.get("ECS_ENGINE_AUTH_DATA", ""))
        found = dict(read(entries))
    except ValueError:
        return {}  # the agent warns, and has no login for any registry
    logins: dict[str, list[Login]] = {}
    for key, login in found.items():
        logins.setdefault(_without_scheme(key), []).append(login)
    return logins


def _without_scheme(key: str) -> str:
    for scheme in ("http://", "https://"):
        if key.startswith(scheme):
            return key.removeprefix(scheme)
    return key


def _docker(entries: dict[str, Login]) -> Iterator[tuple[str, Login]]:
    """Yield the logins of the type `docker`: an entry is Docker's own AuthConfig."""
    yield from entries.items()


def _dockercfg(entries: dict[str, Login]) -> Iterator[tuple[str, Login]]:
    """Yield the logins of the type `dockercfg`, without entries that are not user:password."""
    for key, entry in entries.items():
        encoded = entry.get("auth", "").replace("\r", "").replace("\n", "")
        try:
            decoded = binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError:
            continue
        username, colon, password = decoded.decode("utf-8", "replace").partition(":")
        if colon:
            yield (
                key,
                {
                    name: value
                    for name, value in (("username", username), ("password", password))
                    if value
                },
            )


def _entries(data: str) -> dict[str, Login]:
    """Parse the data as Go does into its types: one value of a wrong type spoils all of it."""
    parsed = json.loads(data, parse_constant=_refuse)
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ValueError("not an object")
    return {key: _entry(value) for key, value in parsed.items()}


def _entry(value: Any) -> Login:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("not an object")
    # Go takes field names in upper and lower case, passes over those it does not know, and leaves
    # a field alone where the value is null.
    fields = {name.lower(): text for name, text in value.items() if text is not None}
    known = {name: fields[name] for name in FIELDS if name in fields}
    if not all(isinstance(text, str) for text in known.values()):
        raise ValueError("not a string")
    return {name: text for name, text in known.items() if text}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
