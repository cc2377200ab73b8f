"""The secrets with the credentials, and the role that reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from batchreg import registry_login
from batchreg.aws import url_suffix
from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, name_of
from batchreg.doctor.collect.redact import words
from batchreg.registry_login import HUB

# The fields that people use, whether right or wrong. Others are counted: a name could be a secret.
FIELDS = (
    "username",
    "password",
    "registry_url",
    "user",
    "login",
    "url",
    "registry",
    "auth",
    "auths",
    "email",
    "token",
)
ECS = (
    "ecs:DiscoverPollEndpoint",
    "ecs:Poll",
    "ecs:RegisterContainerInstance",
    "ecs:SubmitTaskStateChange",
)


@dataclass(frozen=True)
class Read:
    """A secret's facts, with what must stay out of them."""

    fact: facts.Secret
    arn: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    words: tuple[str, ...] = field(default=(), repr=False)

    def marked(self, *, owned: bool, of_job: bool, registry: str) -> Read:
        """Add whose secret it is; `registry` where the stack tells it."""
        known = "docker.io" if self.fact.host == HUB else self.fact.host
        fact = replace(self.fact, owned=owned, of_job=of_job, registry=registry or known)
        return replace(self, fact=fact)


def secret(caller: Caller, arn: str) -> Read:
    """Look at a secret: whether it is there, and what its text looks like."""
    # Without the six characters that Secrets Manager appends to a name to make an ARN of it.
    name = re.sub("-[A-Za-z0-9]{6}$", "", arn.rsplit(":", 1)[-1]) if arn[:4] == "arn:" else arn
    try:
        described = caller.ask("secret", "secretsmanager", "describe_secret", SecretId=arn)
    except Absent:
        return Read(facts.Secret(name=name, arn=arn, exists=False), arn)
    except Unseen:
        described = {}
    changed, deleted = described.get("LastChangedDate"), described.get("DeletedDate")
    more: dict[str, Any] = {
        "changed": changed.isoformat(timespec="seconds") if changed else "",
        "deleted": deleted.isoformat(timespec="seconds") if deleted else "",
        "key": described.get("KmsKeyId", ""),
    }
    if more["key"] and "alias/aws/" not in more["key"]:
        more["key_state"] = _key_state(caller, more["key"])
    username = password = ""
    text = None
    if not deleted:
        try:
            text = caller.ask(
                "secret's shape", "secretsmanager", "get_secret_value", SecretId=arn
            ).get("SecretString")
        except Absent:
            pass
        except Unseen:
            return Read(
                facts.Secret(name=name, arn=arn, **more, keys=("username", "password")), arn
            )
        more |= shape(text)
        if text and {"username", "password"} <= set(more.get("keys", ())):
            fields = json.loads(text, strict=False)
            username, password = str(fields["username"]), str(fields["password"])
    return Read(
        facts.Secret(name=name, arn=arn, **more),
        arn,
        username,
        password,
        words(text) if text else (),
    )


def shape(text: str | None) -> dict[str, Any]:
    """Say what the text of a secret looks like, and nothing of what it says but the registry."""
    if text is None:
        return {"has_value": False}
    try:
        fields = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return {"is_json": False}
    known = tuple(key for key in FIELDS if key in fields)
    found: dict[str, Any] = {"keys": known, "others": len(fields) - len(known)}
    try:
        found["host"] = registry_login.login(text)[0]
    except registry_login.Refused as refusal:
        found["problem"] = str(refusal)
    return found


def _key_state(caller: Caller, key: str) -> str:
    try:
        found = caller.ask("KMS key", "kms", "describe_key", KeyId=key)["KeyMetadata"]
    except Absent:
        return "missing"
    except Unseen:
        return ""
    return str(found.get("KeyState", ""))


def service_linked_role(caller: Caller) -> bool:
    """Tell whether AWS Batch has made its role in this account."""
    try:
        caller.ask("service-linked role", "iam", "get_role", RoleName="AWSServiceRoleForBatch")
    except Absent:
        return False
    return True


def role(
    caller: Caller, profile: str, expected: str, region: str, secrets: Iterable[Read]
) -> facts.Role:
    """Look at the instances' role: `expected` is its ARN, or empty for the profile's own."""
    held, more = [], dict[str, Any]()
    try:
        held = [
            one["Arn"]
            for one in caller.ask(
                "instance profile",
                "iam",
                "get_instance_profile",
                InstanceProfileName=name_of(profile),
            )["InstanceProfile"]["Roles"]
        ]
        more["in_profile"] = expected in held if expected else bool(held)
        more["held"] = name_of(held[0]) if held else ""
    except Absent:
        more["profile_exists"] = False
    except Unseen:
        pass
    arn = expected or (held[0] if held else "")
    if not arn:
        return facts.Role(name="", profile=name_of(profile), **more)
    try:
        found = caller.ask("role", "iam", "get_role", RoleName=name_of(arn))["Role"]
        policy = _document(found["AssumeRolePolicyDocument"])
        # CloudFormation and the console write amazonaws.com in every partition; others may not.
        ec2 = {"ec2.amazonaws.com", f"ec2.{url_suffix(region)}"}
        more["trusted"] = bool(ec2 & set(_services(policy)))
        more["trust"] = "" if more["trusted"] else json.dumps(policy)
    except Absent:
        more["exists"] = False
    except Unseen:
        pass
    if more.get("exists", True):
        more["denied"] = tuple(_denied(caller, arn, region, list(secrets)))
    partition = arn.split(":")[1] if arn.startswith("arn:") else "aws"
    return facts.Role(name=name_of(arn), profile=name_of(profile), partition=partition, **more)


def _document(policy: Any) -> dict[str, Any]:
    """Return a policy; boto3 decodes it, AWS sends it quoted."""
    parsed: dict[str, Any] = json.loads(unquote(policy)) if isinstance(policy, str) else policy
    return parsed


def _services(policy: dict[str, Any]) -> list[str]:
    """Return the services that a trust policy allows."""
    statements = policy.get("Statement", [])
    named: list[str] = []
    for statement in [statements] if isinstance(statements, dict) else statements:
        if statement.get("Effect", "Allow") == "Allow":
            service = (statement.get("Principal") or {}).get("Service", [])
            named += [service] if isinstance(service, str) else service
    return named


def _denied(caller: Caller, arn: str, region: str, secrets: list[Read]) -> Iterable[facts.Denial]:
    questions: list[dict[str, Any]] = [{"ActionNames": list(ECS)}]
    readable = [read.arn for read in secrets if read.fact.exists and read.arn.startswith("arn:")]
    if readable:
        questions.append(
            {"ActionNames": ["secretsmanager:GetSecretValue"], "ResourceArns": readable}
        )
    keys = [read.fact.key for read in secrets if read.fact.key.startswith("arn:")]
    if keys:
        via = {
            "ContextKeyName": "kms:ViaService",
            "ContextKeyType": "string",
            "ContextKeyValues": [f"secretsmanager.{region}.{url_suffix(region)}"],
        }
        questions.append(
            {"ActionNames": ["kms:Decrypt"], "ResourceArns": keys, "ContextEntries": [via]}
        )
    for question in questions:
        try:
            results = caller.ask(
                "role's permissions",
                "iam",
                "simulate_principal_policy",
                items="EvaluationResults",
                PolicySourceArn=arn,
                **question,
            )
        except (Absent, Unseen):
            return
        for one in results:
            refused = denial(one)
            # The role of an attached environment reads the secret by the secret's own policy.
            allowed = one["EvalDecision"] == "allowed" or (
                not refused.by and _secret_allows(caller, refused.resource, arn)
            )
            if not allowed:
                yield refused


def _secret_allows(caller: Caller, secret_arn: str, role_arn: str) -> bool:
    """Tell whether a secret's resource policy lets a role of the same account read it."""
    if ":secretsmanager:" not in secret_arn:
        return False
    try:
        text = caller.ask(
            "secret's policy", "secretsmanager", "get_resource_policy", SecretId=secret_arn
        ).get("ResourcePolicy")
    except (Absent, Unseen):
        return False
    statements = _document(text).get("Statement", []) if text else []
    return any(
        statement.get("Effect") == "Allow"
        and role_arn in _listed((statement.get("Principal") or {}).get("AWS", []))
        and "secretsmanager:GetSecretValue" in _listed(statement.get("Action", []))
        for statement in ([statements] if isinstance(statements, dict) else statements)
    )


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def denial(result: dict[str, Any]) -> facts.Denial:
    """Return what IAM's simulation refuses, and which kind of policy does.

    Source: docs.aws.amazon.com/IAM/latest/APIReference/API_EvaluationResult.html
    """
    by = policy = ""
    if not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
        by = "organization"
    elif not result.get("PermissionsBoundaryDecisionDetail", {}).get(
        "AllowedByPermissionsBoundary", True
    ):
        by = "boundary"
    elif result["EvalDecision"] == "explicitDeny":
        by = "statement"
        policy = next(
            (one.get("SourcePolicyId", "") for one in result.get("MatchedStatements", [])), ""
        )
    return facts.Denial(
        action=result["EvalActionName"],
        resource=result.get("EvalResourceName", "*"),
        by=by,
        policy=policy,
    )
