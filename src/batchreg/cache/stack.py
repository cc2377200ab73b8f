"""The pull-through cache of a stack, read from its parameters and outputs."""

from __future__ import annotations

from batchreg.aws import url_suffix
from batchreg.cache.names import Cache, Cached
from batchreg.stack import registries
from batchreg.stack.states import Stack


def of(stack: Stack) -> Cache | None:
    """Return the cache of a stack; None if it has none."""
    cached = tuple(
        Cached(one.key, one.prefix) for one in registries.of(stack, None) if one.key and one.prefix
    )
    if not cached:
        return None
    _, _, _, region, account, _ = stack.id.split(":", 5)
    return Cache(f"{account}.dkr.ecr.{region}.{url_suffix(region)}", cached)
