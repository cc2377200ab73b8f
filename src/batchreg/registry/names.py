"""What people call registries, and the key under which the ECS agent knows each."""

from __future__ import annotations

from batchreg.errors import BatchregError
from batchreg.registry_login import HUB, REGISTRY, Refused, registry_key

# Short names for registries.
NAMES = {
    "docker-hub": HUB,
    "dockerhub": HUB,
    "ghcr": "ghcr.io",
    "gitlab": "registry.gitlab.com",
    "quay": "quay.io",
}


def address_of(name: str) -> str:
    """Return the address of a registry given by its short name; any other text without blanks."""
    return NAMES.get(name.strip().lower(), name.strip())


def key_of(url: str) -> str:
    """Return the ECS agent's key for a registry; BatchregError for what no image could match."""
    try:
        return str(registry_key(url))
    except Refused:
        raise _no_key(url) from None


def host_of(key: str) -> str:
    """Return what people call the registry of a key."""
    return "Docker Hub" if key == HUB else key


def named(url: str) -> str:
    """Return what people call the registry at `url`; a text that is not an address as it is."""
    try:
        return host_of(key_of(url))
    except BatchregError:
        return url


def same(url: str, key: str) -> bool:
    """Tell whether `url` is a spelling of the registry with this key."""
    try:
        return bool(registry_key(url) == key)
    except Refused:
        return False


def _no_key(url: str) -> BatchregError:
    """Say why the agent has no key for `url`, in the terms of `registry_login.registry_key`."""
    text = url.strip()
    found = REGISTRY.fullmatch(text.lower())
    if found and ":" not in found[2]:
        return BatchregError(
            f"Docker would look for {found[3]}/x on Docker Hub.",
            f"Write a full host, such as {found[3]}.example.com.",
        )
    if found:
        return BatchregError(
            f"{found[2]} is not how images name this registry.",
            f"Write {found[3]} or {found[2]}, as your images do, without {found[1]}.",
        )
    # Credentials may be in it, as in https://user:password@host: then nothing of it is quoted.
    if "@" in text or ":" in text.partition("://")[2] or ":" in text.partition("://")[0]:
        return BatchregError(
            "The registry is not a host.",
            "Write it like ghcr.io. Leave user name and password out of the URL.",
        )
    return BatchregError(f"{text!r} is not a registry host.", "Write it like ghcr.io.")
