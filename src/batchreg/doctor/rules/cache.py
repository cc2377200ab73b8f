"""ECR's pull-through cache: its rules and secrets, and who may pull through it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from batchreg.cache.names import Cache, Cached, cached_name, upstream_name
from batchreg.doctor.facts import CacheRule, Facts, Role
from batchreg.doctor.rules import Evidence, Found, Layer, Table
from batchreg.doctor.rules.commands import aws, batchreg
from batchreg.doctor.rules.credentials import unusable
from batchreg.doctor.rules.repairs import attach_agent_policy, attach_policy
from batchreg.doctor.rules.role import denied, refusal
from batchreg.errors import BatchregError
from batchreg.render.upstreams import FIRST_PULL

RULES = Table()
rule = RULES.rule

ECR = "docs.aws.amazon.com/AmazonECR/latest/"
PERMISSIONS = ECR + "userguide/pull-through-cache-iam.html"

FILL_POLICY = "PullThroughCache"  # of the template's roles
# Source: docs.aws.amazon.com/AmazonECR/latest/userguide/slr-pullthroughcache.html
ECRS_ROLE = (
    "aws-service-role/pullthroughcache.ecr.amazonaws.com/AWSServiceRoleForECRPullThroughCache"
)
# What keeps ECR from a secret, in its words, or from the registry; others are about the way there.
DECRYPTION = re.compile(r"decrypt|\bkms\b", re.IGNORECASE)
ACCESS = re.compile(r"\baccess(ed)?\b", re.IGNORECASE)
CREDENTIALS = re.compile(
    r"authenti|credential|secret|unauthorized|denied|\b40[13]\b", re.IGNORECASE
)


def cache_of(facts: Facts) -> Cache:
    """Return what ECR pulls for the stack."""
    return Cache(facts.cache_host, tuple(Cached(one.host, one.prefix) for one in facts.cache_rules))


def upstream(facts: Facts, image: str) -> str:
    """Return what its own registry calls an image that ECR pulls; empty for any other image."""
    try:
        return (facts.cache_host and upstream_name(image, cache_of(facts))) or ""
    except BatchregError:
        return ""


def in_cache(facts: Facts, image: str) -> str:
    """Return the name by which ECR pulls an image that is named at its registry, or empty."""
    try:
        return (facts.cache_host and cached_name(image, cache_of(facts))) or ""
    except BatchregError:
        return ""


@rule(
    "cache-rule-missing",
    "ECR has no rule for a registry that it should pull from",
    layer=Layer.CACHE,
    source=ECR + "APIReference/API_DescribePullThroughCacheRules.html",
)
def cache_rule_missing(facts: Facts) -> Found:
    for one in facts.cache_rules:
        if not one.exists:
            # CloudFormation does not notice that it is gone, and deletes the one made here.
            create = aws(
                facts,
                *("ecr", "create-pull-through-cache-rule", "--ecr-repository-prefix", one.prefix),
                *("--upstream-registry-url", one.url, "--credential-arn", one.expected),
            )
            yield Evidence(
                f"There is no pull-through cache rule with the prefix {one.prefix} in "
                f"{facts.region}, so no new image of {one.registry} can be pulled.",
                fix=create if one.url else "",
                step="" if one.url else "Create it again in the ECR console.",
            )


@rule(
    "cache-rule-invalid",
    "ECR cannot pull with the credentials of a registry",
    layer=Layer.CACHE,
    source=ECR + "APIReference/API_ValidatePullThroughCacheRule.html",
)
def cache_rule_invalid(facts: Facts) -> Found:
    broken = {one.arn for one in facts.secrets or () if one.cached and unusable(one)}
    for one in facts.cache_rules:
        if one.exists and one.valid is False and one.expected not in broken:
            why = one.failure or "ECR gives no reason."
            yield Evidence(f"{one.prefix}, for {one.registry}: {why}", *_repair(facts, one))


def _repair(facts: Facts, one: CacheRule) -> tuple[str, str]:
    """Return (fix, step) for a rule that ECR has tried in vain."""
    if one.secret not in ("", one.expected):
        command = ("ecr", "update-pull-through-cache-rule", "--ecr-repository-prefix", one.prefix)
        return aws(facts, *command, "--credential-arn", one.expected), (
            f"The rule was changed by hand: it has {one.secret} instead of the stack's secret."
        )
    if DECRYPTION.search(one.failure):
        key = ("secretsmanager", "update-secret", "--secret-id", one.expected)
        return aws(facts, *key, "--kms-key-id", "alias/aws/secretsmanager"), (
            "ECR does not support a customer managed key for this secret: the command encrypts it "
            "with the key aws/secretsmanager."
        )
    partition, account = one.expected.split(":")[1], one.expected.split(":")[4]
    ecr = f"ECR's own role, arn:{partition}:iam::{account}:role/{ECRS_ROLE}"
    if ACCESS.search(one.failure):
        show = ("secretsmanager", "get-resource-policy", "--secret-id", one.expected)
        return "", (
            f"Let {ecr}, read the secret: remove what denies it from the secret's policy. To see the "
            f"policy: {aws(facts, *show)}"
        )
    if CREDENTIALS.search(one.failure):
        return batchreg(facts, "rotate", "--registry", one.registry), (
            f"It asks for new credentials of {one.registry}, and checks them."
        )
    return "", (
        f"Check that {one.registry} is up, and try again. To let ECR try: "
        + aws(
            facts,
            *("ecr", "validate-pull-through-cache-rule", "--ecr-repository-prefix", one.prefix),
        )
    )


@rule(
    "cache-denied",
    "The role is not allowed to pull through ECR's cache",
    layer=Layer.CACHE,
    source=PERMISSIONS,
    symptom_of=Layer.ROLE,
)
def cache_denied(facts: Facts) -> Found:
    if not facts.cache_rules:
        return
    for puller in (facts.role, *facts.execution_roles):
        for role, denial in denied(puller, "ecr:"):
            if denial.by == "resource":
                continue  # repository-closed says so
            found = refusal(role, denial, allow(facts, role, denial.action))
            # Of a companion stack, the role is somebody else's.
            stays = found.fix and denial.action in FIRST_PULL and facts.attached
            step = f"The policy {FILL_POLICY} stays on the role when the environment is detached."
            yield replace(found, step=step) if stays else found


def allow(facts: Facts, role: Role, action: str) -> str:
    """Return the command that allows a role an action of a pull, as the stack's own roles are."""
    if action not in FIRST_PULL:
        if role.profile:
            return attach_agent_policy(facts, role)
        return attach_policy(facts, role, "AmazonECSTaskExecutionRolePolicy")
    account, _, _, region, *_ = facts.cache_host.split(".")
    start = f"arn:{role.partition}:ecr:{region}:{account}:repository/"
    resources = sorted(f"{start}{one.prefix}/*" for one in facts.cache_rules)
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": [*FIRST_PULL], "Resource": resources}],
    }
    return aws(
        facts,
        *("iam", "put-role-policy", "--role-name", role.name, "--policy-name", FILL_POLICY),
        *("--policy-document", json.dumps(policy)),
    )


@rule(
    "repository-closed",
    "The policy of a cached image's repository denies the pull",
    layer=Layer.CACHE,
    source=ECR + "userguide/repository-policies.html",
)
def repository_closed(facts: Facts) -> Found:
    for puller in (facts.role, *facts.execution_roles):
        for role, denial in denied(puller, "ecr:"):
            if denial.by == "resource":
                name = denial.resource.partition(":repository/")[2]
                show = aws(facts, "ecr", "get-repository-policy", "--repository-name", name)
                yield Evidence(
                    f"The policy of the repository {name} explicitly denies {role.name} "
                    f"{denial.action}.",
                    step="No allow statement overrides an explicit deny: remove it from that "
                    f"policy, or ask whoever manages the policy. To see it: {show}",
                )
