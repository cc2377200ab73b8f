"""ECR's API as far as ministack lacks it: pull-through cache rules, repository creation templates,
the registry's policy, and tokens that know whose they are.

The registry itself, from which engines pull, is in `pull_through`. Only the embedded AWS's own
process imports this.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from botocore.loaders import Loader
from botocore.model import ServiceModel
from ministack.core.iam_evaluator import resolve_caller_identity
from ministack.core.responses import (
    AccountRegionScopedDict,
    error_response_json,
    get_account_id,
    get_region,
    json_response,
)
from ministack.core.router import extract_access_key_id
from ministack.services import ecr, kms, secretsmanager

from local_aws import policies, upstreams
from local_aws.upstreams import Login

Data = dict[str, Any]

TOKEN_SECONDS = 12 * 3600
CHANGEABLE = {"credentialArn", "customRoleArn"}  # of a rule
REGISTRY = "registry"  # the key of a registry's policy, of which there is one


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

rules = AccountRegionScopedDict()  # by prefix
templates = AccountRegionScopedDict()  # by prefix
registry_policies = AccountRegionScopedDict()
_tokens: dict[str, tuple[str, float]] = {}  # the caller's ARN and the end of each

_handle_request = ecr.handle_request


class EcrError(ValueError):
    """A request that ECR answers with an error; ValueError, which CloudFormation reports as well."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


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
        check(_shape(action), request)
        if action == "ValidatePullThroughCacheRule":
            return json_response(await validate_rule(request))
        return json_response(ACTIONS[action](request))
    except EcrError as error:
        return error_response_json(error.code, str(error), 400)


# --- What requests look like ---


@functools.cache
def _shape(action: str) -> Any:
    model = ServiceModel(Loader().load_service_model("ecr", "service-2"), "ecr")
    return model.operation_model(action).input_shape


def check(shape: Any, value: Any, where: str = "") -> None:
    """Refuse what AWS's own model of the request does not allow."""
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                raise _violation("null", _join(where, name), "Member must not be null")
        for name, item in value.items():
            if name in shape.members:
                check(shape.members[name], item, _join(where, name))
    elif shape.type_name == "list":
        for item in value:
            check(shape.member, item, f"{where}.member")
    elif shape.type_name == "string":
        limits = shape.metadata
        if len(value) < limits.get("min", 0):
            least = limits["min"]
            raise _violation(
                value, where, f"Member must have length greater than or equal to {least}"
            )
        if len(value) > limits.get("max", len(value)):
            most = limits["max"]
            raise _violation(value, where, f"Member must have length less than or equal to {most}")
        if not re.fullmatch(limits.get("pattern", ".*"), value, re.DOTALL):
            pattern = limits["pattern"]
            raise _violation(
                value, where, f"Member must satisfy regular expression pattern: {pattern}"
            )
        if value not in (shape.enum or [value]):
            allowed = ", ".join(shape.enum)
            raise _violation(value, where, f"Member must satisfy enum value set: [{allowed}]")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _violation(value: str, where: str, why: str) -> EcrError:
    return EcrError(
        "ValidationException",
        f"1 validation error detected: Value '{value}' at '{where}' failed to satisfy "
        f"constraint: {why}",
    )


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


# --- Rules ---


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


# --- Repository creation templates ---


def create_template(request: Data) -> Data:
    prefix = request["prefix"].rstrip("/")
    if prefix in templates:
        raise EcrError(
            "TemplateAlreadyExistsException",
            f"The repository creation template with the prefix '{prefix}' already exists in the "
            f"registry with id '{get_account_id()}'",
        )
    templates[prefix] = _template({**request, "prefix": prefix})
    templates[prefix]["createdAt"] = time.time()
    return _template_answer(templates[prefix])


def _template(request: Data) -> Data:
    encryption = request.get("encryptionConfiguration", {"encryptionType": "AES256"})
    # Source: docs.aws.amazon.com/AmazonECR/latest/userguide/repository-creation-templates-create.html
    needs_role = encryption["encryptionType"] != "AES256" or request.get("resourceTags")
    if needs_role and not request.get("customRoleArn"):
        raise EcrError(
            "InvalidParameterException",
            "A template with resource tags or a KMS key needs a custom role.",
        )
    for name in ("lifecyclePolicy", "repositoryPolicy"):
        if request.get(name):
            _check_json(name, request[name])
    return {
        "imageTagMutability": "MUTABLE",
        **request,
        "encryptionConfiguration": encryption,
        "updatedAt": time.time(),
    }


def _check_json(name: str, text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        raise EcrError(
            "InvalidParameterException",
            f"Invalid parameter at '{name}' failed to satisfy constraint: 'must be valid JSON'",
        ) from None


def _template_answer(template: Data) -> Data:
    return {"registryId": get_account_id(), "repositoryCreationTemplate": dict(template)}


def _find_template(prefix: str) -> Data:
    template: Data | None = templates.get(prefix.rstrip("/"))
    if template is None:
        raise EcrError(
            "TemplateNotFoundException",
            f"The repository creation template with the prefix '{prefix}' does not exist in the "
            f"registry with id '{get_account_id()}'",
        )
    return template


def describe_templates(request: Data) -> Data:
    """List templates; a prefix without one is left out."""
    prefixes = request.get("prefixes", list(templates.keys()))
    found = [templates[prefix] for prefix in prefixes if prefix in templates]
    return {"registryId": get_account_id(), "repositoryCreationTemplates": found}


def update_template(request: Data) -> Data:
    template = _find_template(request["prefix"])
    template.update(_template({**template, **request, "prefix": template["prefix"]}))
    return _template_answer(template)


def replace_template(request: Data) -> None:
    """Update a template as CloudFormation does: what is not given goes back to its default."""
    template = _find_template(request["prefix"])
    created = template["createdAt"]
    template.clear()
    template.update(_template(request), createdAt=created)


def delete_template(request: Data) -> Data:
    template = _find_template(request["prefix"])
    del templates[template["prefix"]]
    return _template_answer(template)


def create_repository(name: str) -> None:
    """Create the repository of an image that is being cached, as its template says."""
    fitting = [
        prefix
        for prefix, template in templates.items()
        if "PULL_THROUGH_CACHE" in template["appliedFor"] and has_prefix(name, prefix)
    ]
    # ROOT is for what no other template is for.
    template = templates[max(fitting, key=lambda p: p != "ROOT" and len(p))] if fitting else {}
    ecr._create_repository(
        {
            "repositoryName": name,
            "tags": template.get("resourceTags", []),
            **{
                key: template[key]
                for key in ("encryptionConfiguration", "imageTagMutability")
                if key in template
            },
        }
    )
    if text := template.get("lifecyclePolicy"):
        ecr._put_lifecycle_policy({"repositoryName": name, "lifecyclePolicyText": text})
    if text := template.get("repositoryPolicy"):
        ecr._set_repository_policy({"repositoryName": name, "policyText": text})


def has_prefix(name: str, prefix: str) -> bool:
    return prefix == "ROOT" or name.startswith(f"{prefix}/")


# --- The registry's policy ---


def get_registry_policy(_: Data) -> Data:
    if REGISTRY not in registry_policies:
        raise EcrError(
            "RegistryPolicyNotFoundException",
            f"Registry policy does not exist in the registry with id '{get_account_id()}'",
        )
    return {"registryId": get_account_id(), "policyText": registry_policies[REGISTRY]}


def put_registry_policy(request: Data) -> Data:
    _check_json("policyText", request["policyText"])
    registry_policies[REGISTRY] = request["policyText"]
    return get_registry_policy({})


def delete_registry_policy(_: Data) -> Data:
    answer = get_registry_policy({})
    del registry_policies[REGISTRY]
    return answer


ACTIONS: dict[str, Callable[[Data], Any]] = {
    "CreatePullThroughCacheRule": create_rule,
    "DescribePullThroughCacheRules": describe_rules,
    "UpdatePullThroughCacheRule": update_rule,
    "DeletePullThroughCacheRule": delete_rule,
    "ValidatePullThroughCacheRule": validate_rule,
    "CreateRepositoryCreationTemplate": create_template,
    "DescribeRepositoryCreationTemplates": describe_templates,
    "UpdateRepositoryCreationTemplate": update_template,
    "DeleteRepositoryCreationTemplate": delete_template,
    "GetRegistryPolicy": get_registry_policy,
    "PutRegistryPolicy": put_registry_policy,
    "DeleteRegistryPolicy": delete_registry_policy,
}
