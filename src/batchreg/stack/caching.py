"""Which registries of a stack ECR's pull-through cache pulls from, and under which prefix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from batchreg.errors import BatchregError
from batchreg.registry.names import address_of, host_of, key_of
from batchreg.render.constraints import CACHE_PREFIX_LENGTH
from batchreg.render.settings import Cached, suffix
from batchreg.render.upstreams import supported, upstream_of

# For Inputs.cache: every registry that ECR supports.
ALL = ("all",)
# What YAML and environment variables call a switch is accepted as well.
_WORDS = {
    **dict.fromkeys(("all", "true", "yes", "on"), ALL),
    **dict.fromkeys(("none", "false", "no", "off"), ()),
}


def wanted(text: str | None) -> tuple[str, ...] | None:
    """Return `Inputs.cache` of --pull-through-cache: all, none, or registries between commas."""
    if text is None:
        return None
    if (word := text.strip().lower()) in _WORDS:
        return _WORDS[word]
    return tuple(_key(name) for name in text.split(",") if name.strip())


def _key(name: str) -> str:
    try:
        return key_of(address_of(name))
    except BatchregError as error:
        # `attach --pull-through-cache genomics` takes the environment's name for a value.
        word = re.fullmatch(r"[\w-]+", name.strip())
        fact = f"{name.strip()} is not a registry." if word else error.fact
        raise BatchregError(
            f"--pull-through-cache: {fact}",
            "Write all, none, or registries such as ghcr.io,docker.io.",
        ) from None


def choose(wanted: tuple[str, ...] | None, present: Cached, keys: Mapping[int, str]) -> Cached:
    """Return Settings.cached for the registries in `keys` ({slot: the agent's key}).

    `wanted`: as in Inputs.cache. Raises BatchregError if ECR cannot do what is wanted.
    """
    if wanted is None:
        return tuple((slot, key) for slot, key in present if keys.get(slot) == key)
    if wanted and not keys:
        raise BatchregError(
            "--pull-through-cache cannot be used with --secret-arn: ECR reads credentials from "
            "secrets of its own form, which the stack creates.",
            "Give the credentials with --registry instead of --secret-arn.",
        )
    if wanted == ALL:
        found = {slot: upstream_of(key) for slot, key in keys.items()}
        usable = tuple((slot, keys[slot]) for slot, one in found.items() if one and one.credentials)
        if not usable:
            hosts = ", ".join(map(host_of, keys.values()))
            raise BatchregError(
                f"ECR's pull-through cache cannot pull private images from {hosts}.",
                f"It supports {supported()}: leave --pull-through-cache out.",
            )
        return usable
    for key in wanted:
        if key not in keys.values():
            hosts = ", ".join(map(host_of, keys.values()))
            raise BatchregError(
                f"{host_of(key)} is not a registry of this stack, which has {hosts}.",
                "Add it with --registry, or leave it out of --pull-through-cache.",
            )
    return tuple((slot, key) for slot, key in keys.items() if key in wanted)


def parameters(
    cached: Cached, addresses: Mapping[int, str], stack_name: str, known: Mapping[str, str]
) -> dict[str, str]:
    """Return the parameters that a cache needs beyond what is `known` already.

    `addresses`: {slot: the registry as it was written}. A cached registry has one spelling.
    """
    found = {f"RegistryUrl{suffix(slot)}": key for slot, key in cached if addresses[slot] != key}
    if cached and not known.get("CachePrefix"):
        found["CachePrefix"] = prefix_of(stack_name)
    return found


def prefix_of(stack_name: str) -> str:
    """Return the prefix of cached images that a stack's name gives."""
    least, most = CACHE_PREFIX_LENGTH
    text = re.sub("[^a-z0-9]+", "-", stack_name.lower()).strip("-")
    if len(text) < least:
        return f"{text}-images"
    if len(text) <= most:
        return text
    return f"{text[: most - 7].rstrip('-')}-{sha256(stack_name.encode()).hexdigest()[:6]}"
