"""ECR's pull-through cache of a stack: its rules, and the policies of what is pulled through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from batchreg.cache.names import Cache, upstream_name
from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, start
from batchreg.doctor.collect.policies import OfEcr
from batchreg.errors import BatchregError
from batchreg.registry.images import parse
from batchreg.render.upstreams import upstream_of
from batchreg.stack.registries import StackRegistry, address_of

REPOSITORIES = 5  # whose policies are looked at

# ECR cannot use the secret, in its own words. Source: botocore's model of CreatePullThroughCacheRule,
# whose errors ValidatePullThroughCacheRule may have as well.
OF_SECRET = (
    "SecretNotFoundException",
    "UnableToAccessSecretException",
    "UnableToDecryptSecretValueException",
)
NO_RULE = "PullThroughCacheRuleNotFoundException"


def rules(caller: Caller, registries: Sequence[StackRegistry]) -> tuple[facts.CacheRule, ...]:
    """Look at the rules of the registries that ECR pulls from, and let ECR try each of them."""
    if not registries:
        return ()
    listed = _begin(_described, caller)
    tried = [_begin(_validated, caller, one.prefix) for one in registries]
    present: Mapping[str, Mapping[str, Any]] | None = listed.result()
    return tuple(
        _rule(one, present, answer.result()) for one, answer in zip(registries, tried, strict=True)
    )


def _rule(
    registry: StackRegistry,
    present: Mapping[str, Mapping[str, Any]] | None,
    answer: Mapping[str, Any] | None,
) -> facts.CacheRule:
    upstream = upstream_of(registry.key or "")
    exists = answer != {} and (present is None or registry.prefix in present)
    answer = answer if exists and answer else {}
    described = (present or {}).get(registry.prefix, {})
    return facts.CacheRule(
        prefix=registry.prefix,
        registry=address_of(registry),
        host=registry.key or "",
        url=upstream.url if upstream else "",
        exists=exists,
        expected=registry.arn,
        secret=described.get("credentialArn") or answer.get("credentialArn", ""),
        valid=answer.get("isValid"),
        failure=answer.get("failure", ""),
    )


def _described(caller: Caller) -> dict[str, Mapping[str, Any]]:
    """Return all rules of the region by their prefix: of one that is missing ECR tells no others."""
    found = caller.ask(
        "pull-through cache rules",
        "ecr",
        "describe_pull_through_cache_rules",
        items="pullThroughCacheRules",
    )
    return {one["ecrRepositoryPrefix"].rstrip("/"): one for one in found}


def _validated(caller: Caller, prefix: str) -> Mapping[str, Any]:
    """Return what ECR says of a rule that it has tried; nothing where there is no such rule."""
    from botocore.exceptions import ClientError

    client = caller.client("ecr")

    def call() -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = client.validate_pull_through_cache_rule(
                ecrRepositoryPrefix=prefix
            )
        except ClientError as error:
            details = error.response.get("Error", {})
            if details.get("Code") == NO_RULE:
                return {}
            if details.get("Code") not in OF_SECRET:
                raise
            return {"isValid": False, "failure": details.get("Message") or details["Code"]}
        return found

    return caller.run("pull-through cache rule", "ecr:ValidatePullThroughCacheRule", call)


def repositories(cache: Cache, partition: str, images: Sequence[str]) -> tuple[str, ...]:
    """Return the ARNs of the repositories of images that are pulled through the cache."""
    paths = [parse(name).path for name in images if upstream(name, cache)]
    return tuple(_arn(cache, partition, path) for path in dict.fromkeys(paths))


def patterns(cache: Cache, partition: str) -> tuple[str, ...]:
    """Return the ARNs of all repositories of the cache, one for each registry."""
    return tuple(_arn(cache, partition, f"{one.prefix}/*") for one in cache.registries)


def _arn(cache: Cache, partition: str, path: str) -> str:
    account, _, _, region, *_ = cache.host.split(".")
    return f"arn:{partition}:ecr:{region}:{account}:repository/{path}"


def upstream(image: str, cache: Cache | None) -> str:
    """Return what its own registry calls a cached image; empty for any other image."""
    try:
        return (cache and upstream_name(image, cache)) or ""
    except BatchregError:  # not the name of an image
        return ""


def policies(caller: Caller, arns: Sequence[str]) -> OfEcr:
    """Look at the policies of ECR's registry and of these repositories."""
    registry = start(_policy, caller, "ECR's registry policy", "get_registry_policy")
    found: dict[str, Future[str | None]] = {
        arn: start(
            _policy,
            caller,
            "repository's policy",
            "get_repository_policy",
            repositoryName=arn.partition(":repository/")[2],
        )
        for arn in arns[:REPOSITORIES]
    }
    return OfEcr(registry.result(), {arn: policy.result() for arn, policy in found.items()})


def _policy(caller: Caller, what: str, method: str, **request: str) -> str | None:
    """Return the text of a policy, empty where there is none, None where nobody may look."""
    try:
        return str(caller.ask(what, "ecr", method, **request).get("policyText", ""))
    except Absent:
        return ""
    except Unseen:
        return None


def _begin(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    def look() -> Any:
        try:
            return function(*arguments)
        except (Unseen, Absent):
            return None

    return start(look)
