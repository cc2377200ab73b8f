"""Which registries of a stack ECR's pull-through cache pulls from, and under which prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from typing import Any

from batchreg.errors import BatchregError
from batchreg.registry.names import host_of
from batchreg.render.constraints import CACHE_PREFIX_LENGTH
from batchreg.render.settings import Cached, Settings, suffix
from batchreg.render.upstreams import supported, upstream_of
from batchreg.stack.preflight import Check, Problem

# For Inputs.cache: every registry that ECR supports.
ALL = ("all",)


def choose(wanted: tuple[str, ...] | None, present: Cached, keys: Mapping[int, str]) -> Cached:
    """Return Settings.cached for the registries in `keys` ({slot: the agent's key}).

    `wanted`: as in Inputs.cache. Raises BatchregError if ECR cannot do what is wanted.
    """
    if wanted is None:
        return tuple((slot, key) for slot, key in present if keys.get(slot) == key)
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


def rules(ecr: Any, settings: Settings, prefix: str, present: Mapping[str, str]) -> list[Check]:
    """Return the check of what ECR has already: no prefix may be somebody else's.

    `present`: the stack's outputs as they are.
    """
    ours = {value for name, value in present.items() if name.startswith("CacheRepositoryPrefix")}
    wanted = {
        f"{prefix}/{settings.directories[slot]}": upstream.url
        for slot, upstream in settings.upstreams.items()
    }
    what = "The pull-through cache rules of this region"
    found = [Check(what, partial(_rules, ecr, wanted, ours))]
    if not any(one.startswith(f"{prefix}/") for one in ours):
        what = "The repository creation templates of this region"
        found.append(Check(what, partial(_templates, ecr, prefix)))
    return found


def _rules(ecr: Any, wanted: Mapping[str, str], ours: set[str]) -> Iterator[Problem]:
    pages = ecr.get_paginator("describe_pull_through_cache_rules").paginate()
    others = {
        rule["ecrRepositoryPrefix"]: rule["upstreamRegistryUrl"]
        for page in pages
        for rule in page["pullThroughCacheRules"]
        if rule["ecrRepositoryPrefix"] not in ours
    }
    for prefix, url in wanted.items():
        if prefix in others:
            yield Problem(
                f"ECR has a pull-through cache rule with the prefix {prefix} already, for "
                f"{others[prefix]}.",
                "Give another --cache-prefix.",
            )
            continue
        same = sorted(name for name, its in others.items() if its == url)
        if same and prefix not in ours:
            yield Problem(
                f"ECR has a pull-through cache rule for {url} already, with the prefix "
                f"{', '.join(same)}.",
                f"It stays as it is; the images of this stack get the prefix {prefix}.",
                certain=False,
            )


def _templates(ecr: Any, prefix: str) -> Iterator[Problem]:
    pages = ecr.get_paginator("describe_repository_creation_templates").paginate()
    prefixes = {
        one["prefix"].rstrip("/") for page in pages for one in page["repositoryCreationTemplates"]
    }
    if prefix in prefixes:
        yield Problem(
            f"ECR has a repository creation template with the prefix {prefix} already.",
            "Give another --cache-prefix.",
        )
