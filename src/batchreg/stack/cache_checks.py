"""What a deploy checks of ECR before it adds a pull-through cache: see `preflight`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from batchreg.render.settings import Settings
from batchreg.render.upstreams import unsupported
from batchreg.stack.preflight import Check, Problem


def checks(ecr: Any, settings: Settings, prefix: str, present: Mapping[str, str]) -> list[Check]:
    """Return the check of what ECR has already: no prefix may be somebody else's.

    `present`: the stack's outputs as they are.
    """
    region = ecr.meta.region_name
    where = "Deploy without --pull-through-cache, or in another region."
    refused = [
        Problem(why, where)
        for upstream in settings.upstreams.values()
        if (why := unsupported(upstream, region))
    ]
    if refused:
        return [Check("The pull-through cache", lambda: refused)]
    ours = {value for name, value in present.items() if name.startswith("CacheRepositoryPrefix")}
    wanted = {
        f"{prefix}/{settings.directories[slot]}": upstream.url
        for slot, upstream in settings.upstreams.items()
    }
    new = not any(one.startswith(f"{prefix}/") for one in ours)
    what = "The pull-through cache rules of this region"
    found = [Check(what, partial(_rules, ecr, wanted, ours, prefix if new else None))]
    if new:
        what = "The repository creation templates of this region"
        found.append(Check(what, partial(_templates, ecr, prefix)))
    return found


def _rules(
    ecr: Any, wanted: Mapping[str, str], ours: set[str], new: str | None
) -> Iterator[Problem]:
    """Yield what stands in the way of the rules. `new`: a prefix that the stack does not have yet."""
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
    below = sorted(
        name for name in others.keys() - wanted.keys() if new and f"{name}/".startswith(f"{new}/")
    )
    if below:
        yield Problem(
            f"ECR has pull-through cache rules with the prefix {new} already: {', '.join(below)}. "
            "The encryption and expiry of this stack's cached images would apply to theirs too.",
            "Give another --cache-prefix.",
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
