"""The roles: who may take them, and what IAM's simulation says that they may do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from batchreg.aws import url_suffix
from batchreg.doctor import facts
from batchreg.doctor.collect import policies
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, name_of, start
from batchreg.doctor.collect.credentials import Read
from batchreg.render.upstreams import FIRST_PULL

ECS = (
    "ecs:DiscoverPollEndpoint",
    "ecs:Poll",
    "ecs:RegisterContainerInstance",
    "ecs:SubmitTaskStateChange",
)
# What AWS Batch needs first of a service role of one's own; its managed policy, AWSBatchServiceRole,
# allows all of it without a condition.
BATCH = ("ec2:DescribeInstances", "ecs:ListContainerInstances", "ecs:RegisterTaskDefinition")
BY_AUTO_SCALING = (
    "autoscaling:CreateAutoScalingGroup",
    "autoscaling:UpdateAutoScalingGroup",
    "ec2:RunInstances",
)
BY_SPOT_FLEET = ("ec2:RequestSpotFleet",)
# docs.aws.amazon.com/batch/latest/userguide/spot_fleet_IAM_role.html
SPOT_FLEET = (
    "ec2:DescribeImages",
    "ec2:DescribeSubnets",
    "ec2:RequestSpotInstances",
    "ec2:TerminateInstances",
)
LINKED = "/aws-service-role/"


def linked(caller: Caller, name: str) -> bool:
    """Tell whether the account has a service-linked role."""
    try:
        caller.ask("service-linked role", "iam", "get_role", RoleName=name)
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
    trust = begin(_trust, caller, arn, "ec2", region)
    questions = [{"ActionNames": list(ECS)}, reading(arn, arns), *pulling(repositories)]
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
    asked = [start(_simulated, caller, arn, question) for question in pulling(repositories)]
    answers = [answer.result() for answer in asked]
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


def pulling(repositories: Sequence[str]) -> list[dict[str, Any]]:
    """Return the questions about ECR's cache; none without repositories."""
    if not repositories:
        return []
    return [
        {"ActionNames": [policies.TOKEN]},
        {"ActionNames": [*FIRST_PULL, *policies.READING], "ResourceArns": [*repositories]},
    ]


def _partition(arn: str) -> str:
    return arn.split(":")[1] if arn.startswith("arn:") else "aws"


def of(
    caller: Caller,
    arn: str,
    service: str,
    region: str,
    *questions: Mapping[str, Any],
    begin: Begin = start,
) -> facts.Role:
    """Look at a role that a service takes, such as "batch"; `questions` are what it has to do."""
    trust = begin(_trust, caller, arn, service, region)
    answers = [
        answer.result()
        for answer in [begin(_simulated, caller, arn, each) for each in questions if each]
    ]
    return facts.Role(
        name=name_of(arn),
        partition=_partition(arn),
        simulated=bool(answers) and None not in answers,
        denied=tuple(
            one for answer in answers for one in answer or () if not _granted(caller, arn, one)
        ),
        **trust.result(),
    )


def reading(role: str, arns: Sequence[str]) -> dict[str, Any]:
    """Return the question about secrets; one of another account has a policy that counts as well."""
    mine = [arn for arn in arns if arn.startswith("arn:") and arn.split(":")[4] in role.split(":")]
    return {"ActionNames": ["secretsmanager:GetSecretValue"], "ResourceArns": mine} if mine else {}


def _trust(caller: Caller, arn: str, service: str, region: str) -> dict[str, Any]:
    try:
        found = caller.ask("role", "iam", "get_role", RoleName=name_of(arn))["Role"]
    except Absent:
        return {"exists": False}
    except Unseen:
        return {"seen": False}
    policy = policies.document(found["AssumeRolePolicyDocument"])
    # CloudFormation and the console write amazonaws.com in every partition; others may not.
    names = {f"{service}.amazonaws.com", f"{service}.{url_suffix(region)}"}
    trusted = bool(names & set(_services(policy)))
    return {"trusted": trusted, "trust": "" if trusted else json.dumps(policy)}


def _services(policy: dict[str, Any]) -> list[str]:
    """Return the services that a trust policy allows."""
    named: list[str] = []
    for statement in policies.statements(policy):
        if statement.get("Effect", "Allow") == "Allow":
            named += policies.listed((statement.get("Principal") or {}).get("Service", []))
    return named


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
    """Return what IAM's simulation refuses, None where it gives no answer.

    A condition on something that is not known here, such as a tag, decides nothing.
    """
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
    refused = [one for result in results for one in _refused(result)]
    known = [one for one in refused if not _open(one)]
    return [denial(one) for one in known] if known or not refused else None


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


def _open(refused: Mapping[str, Any]) -> bool:
    """Tell whether what nothing allows may be allowed under a condition that was not simulated."""
    return refused["EvalDecision"] == "implicitDeny" and bool(refused.get("MissingContextValues"))


def _granted(
    caller: Caller,
    role: str,
    refused: facts.Denial,
    of_ecr: Callable[[], policies.OfEcr] = policies.OfEcr,
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
