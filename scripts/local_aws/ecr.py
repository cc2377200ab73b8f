"""ECR's API as far as ministack lacks it: tokens that know whose they are, the registry's policy, and
the actions of `cache_rules` and `creation_templates`.

The registry itself, from which engines pull, is in `pull_through`. Only the embedded AWS's own
process imports this.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from ministack.core.iam_evaluator import resolve_caller_identity
from ministack.core.responses import (
    AccountRegionScopedDict,
    error_response_json,
    get_account_id,
    get_region,
    json_response,
)
from ministack.core.router import extract_access_key_id
from ministack.services import ecr

from local_aws import cache_rules, creation_templates, policies, upstreams
from local_aws.ecr_requests import EcrError, check, check_json, shape_of

Data = dict[str, Any]

TOKEN_SECONDS = 12 * 3600
REGISTRY = "registry"  # the key of a registry's policy, of which there is one

registry_policies = AccountRegionScopedDict()
_tokens: dict[str, tuple[str, float]] = {}  # the caller's ARN and the end of each

_handle_request = ecr.handle_request


def install() -> None:
    """Add it to ministack, before the server starts."""
    ecr.handle_request = handle_request


async def handle_request(method: str, path: str, headers: Data, body: bytes, query: Data) -> Any:
    """Answer the actions of this module, and leave all others of ECR to ministack."""
    action = headers.get("x-amz-target", "").rpartition(".")[2]
    try:
        if action == "GetAuthorizationToken":
            caller = resolve_caller_identity(extract_access_key_id(headers, query))
            return json_response(get_authorization_token((caller or {}).get("userArn", "")))
        if action not in (*ACTIONS, "LocalAwsUpstreams"):
            return await _handle_request(method, path, headers, body, query)
        request = json.loads(body or "{}")
        if action == "LocalAwsUpstreams":  # what the registries' hosts stand for here
            upstreams.addresses.update(request)
            return json_response({})
        check(shape_of(action), request)
        if action == "ValidatePullThroughCacheRule":
            return json_response(await cache_rules.validate_rule(request))
        return json_response(ACTIONS[action](request))
    except EcrError as error:
        return error_response_json(error.code, str(error), 400)


# --- Tokens ---


def get_authorization_token(caller: str) -> Data:
    """Give a token to whoever may have one; `caller` is empty for the account's root."""
    caller = caller or f"arn:aws:iam::{get_account_id()}:root"
    action = "ecr:GetAuthorizationToken"
    result = policies.decide(caller, action, "*")
    if result.decision != "Allow":
        raise EcrError("AccessDeniedException", policies.refusal(caller, action, "*", result))
    token, ends = secrets.token_urlsafe(96), time.time() + TOKEN_SECONDS
    _tokens[token] = (caller, ends)
    return {
        "authorizationData": [
            {
                "authorizationToken": base64.b64encode(f"AWS:{token}".encode()).decode(),
                "expiresAt": ends,
                "proxyEndpoint": f"https://{host()}",
            }
        ]
    }


def caller_of(token: str) -> str | None:
    """Return the ARN of who got this token, None if it is no token or has expired."""
    caller, ends = _tokens.get(token, ("", 0))
    return caller if time.time() < ends else None


def host() -> str:
    return f"{get_account_id()}.dkr.ecr.{get_region()}.amazonaws.com"


# --- The registry's policy ---


def get_registry_policy(_: Data) -> Data:
    if REGISTRY not in registry_policies:
        raise EcrError(
            "RegistryPolicyNotFoundException",
            f"Registry policy does not exist in the registry with id '{get_account_id()}'",
        )
    return {"registryId": get_account_id(), "policyText": registry_policies[REGISTRY]}


def put_registry_policy(request: Data) -> Data:
    check_json("policyText", request["policyText"])
    registry_policies[REGISTRY] = request["policyText"]
    return get_registry_policy({})


def delete_registry_policy(_: Data) -> Data:
    answer = get_registry_policy({})
    del registry_policies[REGISTRY]
    return answer


ACTIONS: dict[str, Callable[[Data], Any]] = {
    "CreatePullThroughCacheRule": cache_rules.create_rule,
    "DescribePullThroughCacheRules": cache_rules.describe_rules,
    "UpdatePullThroughCacheRule": cache_rules.update_rule,
    "DeletePullThroughCacheRule": cache_rules.delete_rule,
    "ValidatePullThroughCacheRule": cache_rules.validate_rule,
    "CreateRepositoryCreationTemplate": creation_templates.create_template,
    "DescribeRepositoryCreationTemplates": creation_templates.describe_templates,
    "UpdateRepositoryCreationTemplate": creation_templates.update_template,
    "DeleteRepositoryCreationTemplate": creation_templates.delete_template,
    "GetRegistryPolicy": get_registry_policy,
    "PutRegistryPolicy": put_registry_policy,
    "DeleteRegistryPolicy": delete_registry_policy,
}
