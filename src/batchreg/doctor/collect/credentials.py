"""The secrets with the credentials, and the role that reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from batchreg import registry_login
from batchreg.aws import url_suffix
from batchreg.doctor import facts
from batchreg.doctor.collect import policies
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, name_of, start
from batchreg.doctor.collect.redact import words
from batchreg.registry_login import HUB
from batchreg.render.upstreams import FIRST_PULL
from batchreg.stack.registries import StackRegistry, as_on_instances

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
    "accessToken",
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

    @property
    def name(self) -> str:
        return self.fact.name

    def marked(self, *, owned: bool, of_job: bool, registry: str) -> Read:
        """Add whose secret it is; `registry` where the stack tells it."""
        known = "docker.io" if self.fact.host == HUB else self.fact.host
        fact = replace(self.fact, owned=owned, of_job=of_job, registry=registry or known)
        return replace(self, fact=fact)


def secret(caller: Caller, arn: str, cached: StackRegistry | None = None) -> Read:
    """Look at a secret: whether it is there, and what its text looks like.

    `cached`: the registry that ECR reads it for. One in another region is left alone: Secrets
    Manager here would say that it does not exist.
    """
    read = _secret(caller, arn, cached)
    if not cached:
        return read
    fact = replace(read.fact, cached=True, host=cached.key or "")
    return replace(read, fact=fact)


def _secret(caller: Caller, arn: str, cached: StackRegistry | None) -> Read:
    fields = ("username", "accessToken" if cached else "password")
    # Without the six characters that Secrets Manager appends to a name to make an ARN of it.
    name = re.sub("-[A-Za-z0-9]{6}$", "", arn.rsplit(":", 1)[-1]) if arn[:4] == "arn:" else arn
    fact = facts.Secret(name=name, arn=arn, keys=fields)
    if fact.region not in ("", caller.client("secretsmanager").meta.region_name):
        return Read(replace(fact, seen=False), arn)
    try:
        described = caller.ask("secret", "secretsmanager", "describe_secret", SecretId=arn)
    except Absent:
        return Read(facts.Secret(name=name, arn=arn, exists=False), arn)
    except Unseen:
        described = {}
    changed, deleted = described.get("LastChangedDate"), described.get("DeletedDate")
    fact = replace(
        fact,
        arn=described.get("ARN") or arn,
        changed=changed.isoformat(timespec="seconds") if changed else "",
        deleted=deleted.isoformat(timespec="seconds") if deleted else "",
        seen=bool(described),
        **_key(caller, described.get("KmsKeyId", "")),
    )
    if deleted:
        return Read(replace(fact, keys=()), fact.arn)
    text = None
    try:
        text = caller.ask("secret's shape", "secretsmanager", "get_secret_value", SecretId=arn).get(
            "SecretString"
        )
    except Absent:
        pass
    except Unseen:
        return Read(fact, fact.arn)
    fact = replace(fact, seen=True, **{"keys": (), **shape(text, cached)})
    username = password = ""
    if text and {*fields} <= set(fact.keys):
        held = json.loads(text, strict=False)
        username, password = (str(held[name]) for name in fields)
    return Read(fact, fact.arn, username, password, words(text) if text else ())


def shape(text: str | None, cached: StackRegistry | None = None) -> dict[str, Any]:
    """Say what the text of a secret looks like, and nothing of what it says but the registry.

    `cached`: as for `secret`.
    """
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
        usable = as_on_instances(text, cached) if cached else text
        found["host"] = registry_login.login(usable)[0]
    except registry_login.Refused as refusal:
        found["problem"] = str(refusal)
    return found


def _key(caller: Caller, key: str) -> dict[str, Any]:
    """Return the ARN and the state of a secret's customer managed key; DescribeSecret gives an ARN,
    an id or an alias. Nothing where the key is AWS's own."""
    if not key or "alias/aws/" in key:
        return {}
    try:
        found = caller.ask("KMS key", "kms", "describe_key", KeyId=key)["KeyMetadata"]
    except Absent:
        return {"key": key, "key_state": "missing"}
    except Unseen:
        return {"key": key}
    if found.get("KeyManager") == "AWS":
        return {}
    return {"key": found.get("Arn") or key, "key_state": str(found.get("KeyState", ""))}


def service_linked_role(caller: Caller) -> bool:
    """Tell whether AWS Batch has made its role in this account."""
    try:
        caller.ask("service-linked role", "iam", "get_role", RoleName="AWSServiceRoleForBatch")
    except Absent:
        return False
    return True


Begin = Callable[..., Future[Any]]


@dataclass(frozen=True)
class Holder:
    """The instance profile, by name or ARN, and the role that a stack says is in it, if any does."""

    profile: str
    expected: str = ""


def role(
    caller: Caller,
    holder: Holder,
    region: str,
    arns: Sequence[str],
    secrets: Callable[[], Sequence[Read]],
    begin: Begin = start,
    repositories: Sequence[str] = (),
    of_ecr: Callable[[], policies.OfEcr] = policies.OfEcr,
) -> facts.Role:
    """Look at the instances' role; `arns` are those of the secrets that it has to read.

    `secrets` waits for what was found about them. `begin` starts what does not depend on it.
    `repositories`: the ARNs of those that it pulls through ECR's cache; `of_ecr` waits for their
    policies.
    """
    held, more = [], dict[str, Any]()
    profile, expected = name_of(holder.profile), holder.expected
    try:
        held = [
            one["Arn"]
            for one in caller.ask(
                "instance profile", "iam", "get_instance_profile", InstanceProfileName=profile
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
        return facts.Role(name="", profile=profile, simulated=False, **more)
    trust = begin(_trust, caller, arn, region)
    questions = [{"ActionNames": list(ECS)}, _reading(arn, arns), *pulling(repositories)]
    permissions = [begin(_simulated, caller, arn, question) for question in questions if question]
    more |= trust.result()
    if more.get("exists", True):
        if question := _decrypting(region, secrets()):
            permissions.append(begin(_simulated, caller, arn, question))
        answers = [permission.result() for permission in permissions]
        more["simulated"] = None not in answers
        refused = [one for answer in answers for one in answer or ()]
        more["denied"] = (
            *(one for one in refused if not _granted(caller, arn, one, of_ecr)),
            *(of_ecr().denials(arn) if repositories else ()),
        )
    return facts.Role(name=name_of(arn), profile=profile, partition=_partition(arn), **more)


def execution_role(
    caller: Caller, arn: str, repositories: Sequence[str], of_ecr: Callable[[], policies.OfEcr]
) -> facts.Role:
    """Look at what a job's execution role may pull; `repositories` and `of_ecr` as for `role`."""
    answers = [
        answer.result()
        for answer in [start(_simulated, caller, arn, one) for one in pulling(repositories)]
    ]
    refused = [one for answer in answers for one in answer or ()]
    return facts.Role(
        name=name_of(arn),
        partition=_partition(arn),
        simulated=None not in answers,
        denied=(
            *(one for one in refused if not _granted(caller, arn, one, of_ecr)),
            *of_ecr().denials(arn),
        ),
    )


def _partition(arn: str) -> str:
    return arn.split(":")[1] if arn.startswith("arn:") else "aws"


def pulling(repositories: Sequence[str]) -> list[dict[str, Any]]:
    """Return the questions about ECR's cache; none without repositories."""
    if not repositories:
        return []
    return [
        {"ActionNames": [policies.TOKEN]},
        {"ActionNames": [*FIRST_PULL, *policies.READING], "ResourceArns": [*repositories]},
    ]


def _trust(caller: Caller, arn: str, region: str) -> dict[str, Any]:
    try:
        found = caller.ask("role", "iam", "get_role", RoleName=name_of(arn))["Role"]
    except Absent:
        return {"exists": False}
    except Unseen:
        return {"seen": False}
    policy = policies.document(found["AssumeRolePolicyDocument"])
    # CloudFormation and the console write amazonaws.com in every partition; others may not.
    trusted = bool({"ec2.amazonaws.com", f"ec2.{url_suffix(region)}"} & set(_services(policy)))
    return {"trusted": trusted, "trust": "" if trusted else json.dumps(policy)}


def _services(policy: dict[str, Any]) -> list[str]:
    """Return the services that a trust policy allows."""
    named: list[str] = []
    for statement in policies.statements(policy):
        if statement.get("Effect", "Allow") == "Allow":
            named += policies.listed((statement.get("Principal") or {}).get("Service", []))
    return named


def _reading(role: str, arns: Sequence[str]) -> dict[str, Any]:
    """Return the question about secrets; one of another account has a policy that counts as well."""
    mine = [arn for arn in arns if arn.startswith("arn:") and arn.split(":")[4] in role.split(":")]
    return {"ActionNames": ["secretsmanager:GetSecretValue"], "ResourceArns": mine} if mine else {}


def _decrypting(region: str, secrets: Sequence[Read]) -> dict[str, Any]:
    keys = list(dict.fromkeys(read.fact.key for read in secrets if read.fact.key[:4] == "arn:"))
    via = {
        "ContextKeyName": "kms:ViaService",
        "ContextKeyType": "string",
        "ContextKeyValues": [f"secretsmanager.{region}.{url_suffix(region)}"],
    }
    question = {"ActionNames": ["kms:Decrypt"], "ResourceArns": keys, "ContextEntries": [via]}
    return question if keys else {}


def _simulated(caller: Caller, arn: str, question: Mapping[str, Any]) -> list[facts.Denial] | None:
    """Return what IAM's simulation refuses, None where it gives no answer."""
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
        return None
    return [denial(one) for result in results for one in _refused(result)]


def _refused(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is refused of a result: with several resources, each has a decision of its own."""
    for one in result.get("ResourceSpecificResults") or ():
        if one["EvalResourceDecision"] != "allowed":
            yield {
                **result,
                **one,
                "EvalDecision": one["EvalResourceDecision"],
                "EvalResourceName": one["EvalResourceName"],
            }
    if not result.get("ResourceSpecificResults") and result["EvalDecision"] != "allowed":
        yield dict(result)


def _granted(
    caller: Caller, role: str, refused: facts.Denial, of_ecr: Callable[[], policies.OfEcr]
) -> bool:
    """Tell whether a resource's own policy grants what no policy of the role does, or may do so.

    IAM does not simulate the policies of resources for a role. Source: docs.aws.amazon.com/IAM/
    latest/APIReference/API_SimulatePrincipalPolicy.html
    """
    if not refused.by and refused.action.startswith("ecr:"):
        return of_ecr().grant(role, refused)
    if refused.by or not refused.action.startswith("secretsmanager:"):
        return False
    try:
        text = caller.ask(
            "secret's policy", "secretsmanager", "get_resource_policy", SecretId=refused.resource
        ).get("ResourcePolicy")
    except Absent:
        return False
    except Unseen:
        return True  # nobody knows
    return any(
        one.get("Effect") == "Allow"
        and policies.names(one, role)
        and policies.covers(one, refused.action)
        for one in policies.statements(text)
    )


def denial(result: dict[str, Any]) -> facts.Denial:
    """Return what IAM's simulation refuses, and which kind of policy does.

    Source: docs.aws.amazon.com/IAM/latest/APIReference/API_EvaluationResult.html
    """
    by = policy = ""
    matched = result.get("MatchedStatements", [])
    if not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
        by = "organization"
    elif not result.get("PermissionsBoundaryDecisionDetail", {}).get(
        "AllowedByPermissionsBoundary", True
    ):
        by = "boundary"
    elif result["EvalDecision"] == "explicitDeny":
        by = "statement"
        policy = next((one["SourcePolicyId"] for one in matched if one.get("SourcePolicyId")), "")
    return facts.Denial(
        action=result["EvalActionName"],
        resource=result.get("EvalResourceName", "*"),
        by=by,
        policy=policy,
    )
