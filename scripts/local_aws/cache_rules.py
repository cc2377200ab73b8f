"""ECR's pull-through cache rules, and the secrets that they read.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any, NamedTuple

from ministack.core.responses import AccountRegionScopedDict, get_account_id
from ministack.services import kms, secretsmanager

from local_aws import policies, upstreams
from local_aws.ecr_requests import EcrError
from local_aws.upstreams import Login

Data = dict[str, Any]

CHANGEABLE = {"credentialArn", "customRoleArn"}  # of a rule

rules = AccountRegionScopedDict()  # by prefix


class Kind(NamedTuple):
    """A registry that ECR can pull from: what its URL is like, and whether it takes a secret."""

    url: str
    secret: bool


# Source: docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreatePullThroughCacheRule.html
KINDS = {
    "ecr": Kind(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?", False),
    "ecr-public": Kind(r"public\.ecr\.aws", False),
    "quay": Kind(r"quay\.io", False),
    "k8s": Kind(r"registry\.k8s\.io", False),
    "docker-hub": Kind(r"registry-1\.docker\.io", True),
    "github-container-registry": Kind(r"ghcr\.io", True),
    "azure-container-registry": Kind(r"[a-zA-Z0-9]+\.azurecr\.(io|cn|us)", True),
    "gitlab-container-registry": Kind(r"registry\.gitlab\.com", True),
    "chainguard": Kind(r"cgr\.dev", True),
}


def create_rule(request: Data) -> Data:
    prefix, url = request["ecrRepositoryPrefix"].rstrip("/"), request["upstreamRegistryUrl"]
    kinds = [name for name, kind in KINDS.items() if re.fullmatch(kind.url, url)]
    if not kinds or request.get("upstreamRegistry", kinds[0]) != kinds[0]:
        raise EcrError(
            "UnsupportedUpstreamRegistryException",
            "The specified upstream registry isn't supported.",
        )
    secret = request.get("credentialArn")
    if KINDS[kinds[0]].secret and not secret:
        raise EcrError(
            "UnsupportedUpstreamRegistryException",
            "The specified upstream registry requires authentication. "
            "Specify a valid Secrets Manager ARN",
        )
    if secret and not KINDS[kinds[0]].secret:
        raise EcrError(
            "ValidationException", "The specified upstream registry does not take credentials."
        )
    if secret:
        read_login(secret)
    if prefix in rules:
        raise EcrError(
            "PullThroughCacheRuleAlreadyExistsException",
            f"A pull through cache rule with the prefix '{prefix}' already exists in the registry "
            f"with id '{get_account_id()}'",
        )
    rules[prefix] = {
        **request,
        "ecrRepositoryPrefix": prefix,
        "upstreamRegistry": kinds[0],
        "upstreamRepositoryPrefix": request.get("upstreamRepositoryPrefix", "ROOT"),
        "registryId": get_account_id(),
        "createdAt": time.time(),
        "updatedAt": time.time(),
    }
    return dict(rules[prefix])


def _rule(request: Data) -> Data:
    return _find_rule(request["ecrRepositoryPrefix"])


def _find_rule(prefix: str) -> Data:
    rule: Data | None = rules.get(prefix.rstrip("/"))
    if rule is None:
        raise EcrError(
            "PullThroughCacheRuleNotFoundException",
            f"The pull through cache rule with the prefix '{prefix}' does not exist in the registry "
            f"with id '{get_account_id()}'",
        )
    return rule


def describe_rules(request: Data) -> Data:
    prefixes = request.get("ecrRepositoryPrefixes")
    found = list(rules.values()) if prefixes is None else list(map(_find_rule, prefixes))
    return {"pullThroughCacheRules": found}


def update_rule(request: Data) -> Data:
    rule = _rule(request)
    if secret := request.get("credentialArn"):
        read_login(secret)
    rule.update({name: request[name] for name in CHANGEABLE & request.keys()})
    rule["updatedAt"] = time.time()
    return rule


def delete_rule(request: Data) -> Data:
    """Delete a rule; what it has cached stays."""
    rule = _rule(request)
    del rules[rule["ecrRepositoryPrefix"]]
    return rule


async def validate_rule(request: Data) -> Data:
    """Try the upstream registry with the credentials in the secret."""
    rule = _rule(request)
    try:
        login = read_login(rule["credentialArn"]) if "credentialArn" in rule else None
        failure = await asyncio.to_thread(upstreams.refuses, rule["upstreamRegistryUrl"], login)
    except EcrError as error:
        failure = str(error)
    return {**rule, "isValid": not failure, **({"failure": failure} if failure else {})}


def read_login(arn: str) -> Login:
    """Read a rule's secret with the rights of ECR's service-linked role.

    Raises EcrError, in the words of the errors' documentation.
    """
    _, secret = secretsmanager._resolve(arn)
    if secret is None or secret.get("DeletedDate"):
        raise EcrError(
            "SecretNotFoundException",
            "The ARN of the secret specified in the pull through cache rule was not found. Update "
            "the pull through cache rule with a valid secret ARN and try again.",
        )
    name = "AWSServiceRoleForECRPullThroughCache"
    role = f"arn:aws:sts::{get_account_id()}:assumed-role/{name}/{name}"
    policy = secretsmanager._resource_policies.get(secret["ARN"], "")
    action = "secretsmanager:GetSecretValue"
    denied = policies.decide(role, action, secret["ARN"], resource_policies=[policy])
    if denied.decision == "Deny":
        raise EcrError(
            "UnableToAccessSecretException",
            "The secret is unable to be accessed. Verify the resource permissions for the secret "
            "and try again.",
        )
    key = secret.get("KmsKeyId") or ""
    if key and "alias/aws/" not in key:
        found = kms._resolve_key(key)
        if found is None or found["KeyState"] != "Enabled":
            raise EcrError(
                "UnableToDecryptSecretValueException",
                "The secret is accessible but is unable to be decrypted. Verify the resource "
                "permissions and try again.",
            )
    value = json.loads(secretsmanager._get_secret_value({"SecretId": arn})[2])
    try:
        content = json.loads(value["SecretString"])
        return Login(str(content["username"]), str(content["accessToken"]))
    except (KeyError, TypeError, ValueError):
        raise EcrError(
            "ValidationException",
            "The secret must be a JSON object with the keys username and accessToken.",
        ) from None
