"""What IAM allows: the policies of roles and resources, by ministack's own evaluator.

ministack enforces nothing here, but what a role may do decides what ECR does for it, and what
SimulatePrincipalPolicy answers. Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.iam_evaluator import EvalContext, EvalResult
from ministack.core.responses import get_account_id, get_region
from ministack.services import iam

Data = dict[str, Any]

ECR_PULL = [
    "ecr:GetAuthorizationToken",
    "ecr:BatchCheckLayerAvailability",
    "ecr:GetDownloadUrlForLayer",
    "ecr:BatchGetImage",
]
# Policies of AWS's that ministack lacks.
# Source: docs.aws.amazon.com/aws-managed-policy/latest/reference/<name>.html
MANAGED: dict[str, list[Data]] = {
    "service-role/AmazonEC2SpotFleetTaggingRole": [
        {
            "Effect": "Allow",
            "Action": [
                "ec2:DescribeImages",
                "ec2:DescribeSubnets",
                "ec2:RequestSpotInstances",
                "ec2:TerminateInstances",
                "ec2:DescribeInstanceStatus",
                "ec2:CreateTags",
            ],
            "Resource": "*",
        }
    ],
    "service-role/AWSBatchServiceRole": [  # the part that doctor asks for
        {
            "Effect": "Allow",
            "Action": [
                "autoscaling:CreateAutoScalingGroup",
                "autoscaling:UpdateAutoScalingGroup",
                "ec2:DescribeInstances",
                "ec2:RequestSpotFleet",
                "ec2:RunInstances",
                "ecs:ListContainerInstances",
                "ecs:RegisterTaskDefinition",
            ],
            "Resource": "*",
        }
    ],
    "service-role/AmazonEC2ContainerServiceforEC2Role": [
        {
            "Effect": "Allow",
            "Action": [
                "ec2:DescribeTags",
                "ecs:CreateCluster",
                "ecs:DeregisterContainerInstance",
                "ecs:DiscoverPollEndpoint",
                "ecs:Poll",
                "ecs:RegisterContainerInstance",
                "ecs:StartTelemetrySession",
                "ecs:UpdateContainerInstancesState",
                "ecs:Submit*",
                *ECR_PULL,
                "logs:CreateLogStream",
                "logs:PutLogEvents",
            ],
            "Resource": "*",
        },
        {
            "Effect": "Allow",
            "Action": "ecs:TagResource",
            "Resource": "*",
            "Condition": {
                "StringEquals": {"ecs:CreateAction": ["CreateCluster", "RegisterContainerInstance"]}
            },
        },
    ],
}
DECISIONS = {"Allow": "allowed", "Deny": "explicitDeny", "ImplicitDeny": "implicitDeny"}


def install() -> None:
    """Add it to ministack, before the server starts."""
    for name, statements in MANAGED.items():
        record = iam._make_aws_managed_record(name, document(statements))
        iam._aws_managed_policies.setdefault(record["Arn"], record)
    iam._IAM_HANDLERS["SimulatePrincipalPolicy"] = simulate


def document(statements: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def decide(
    principal: str,
    action: str,
    resource: str,
    *,
    context: Mapping[str, Any] | None = None,
    resource_policies: Iterable[str] = (),
) -> EvalResult:
    """Tell whether a principal, given by its ARN, may do something to a resource.

    Besides its own policies and its boundary those of the resource count. The account's root, which
    the embedded AWS's own credentials stand for, may do what no policy of the resource denies.
    """
    account = get_account_id()
    asked = EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=get_region(),
        service_context={key.lower(): value for key, value in (context or {}).items()},
    )
    kind, _, rest = principal.split(":", 5)[5].partition("/")
    if kind in ("assumed-role", "role"):
        name = rest.partition("/")[0] if kind == "assumed-role" else rest.rpartition("/")[2]
        limits = iam_evaluator._permissions_boundary(iam._roles, name, account)
        own = iam_evaluator._gather_role_policies(name, account)
        result = iam_evaluator.evaluate(asked, own, *limits)
    elif kind == "user":
        name, limits = rest.rpartition("/")[2], []
        result = iam_evaluator.evaluate(asked, iam_evaluator._gather_user_policies(name, account))
    else:
        limits, result = [], EvalResult("Allow", principal)
    for text in resource_policies:
        result = iam_evaluator.combine_resource_policy(
            result, asked, text, account, limits=tuple(limits)
        )
        if result.decision == "Deny":
            break
    return result


def refusal(principal: str, action: str, resource: str, result: EvalResult) -> str:
    """Say why, as AWS does.

    Source: docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    asked = f"User: {principal} is not authorized to perform: {action} on resource: {resource}"
    if result.decision == "Deny":
        kind = "resource" if result.resource_policy_arn else "identity"
        return f"{asked} with an explicit deny in a {kind}-based policy"
    return f"{asked} because no identity-based policy allows the {action} action"


def simulate(params: Data) -> Any:
    """Answer SimulatePrincipalPolicy for a role or a user; policies of resources do not count."""
    arn = iam._p(params, "PolicySourceArn")
    kind, _, rest = arn.split(":", 5)[-1].partition("/")
    store = {"role": iam._roles, "user": iam._users}.get(kind, {})
    if rest.rpartition("/")[2] not in store:
        return iam._error(404, "NoSuchEntity", f"The {kind} cannot be found.", ns="iam")
    context = dict(_context(params))
    results = "".join(
        f"<member><EvalActionName>{action}</EvalActionName>"
        f"<EvalResourceName>{resource}</EvalResourceName>"
        f"<EvalDecision>{DECISIONS[decide(arn, action, resource, context=context).decision]}"
        "</EvalDecision></member>"
        for action in list(_listed(params, "ActionNames.member"))
        for resource in list(_listed(params, "ResourceArns.member")) or ["*"]
    )
    return iam._xml(
        200,
        "SimulatePrincipalPolicyResponse",
        (
            f"<SimulatePrincipalPolicyResult><EvaluationResults>{results}</EvaluationResults>"
            "<IsTruncated>false</IsTruncated></SimulatePrincipalPolicyResult>"
        ),
        ns="iam",
    )


def _listed(params: Data, name: str) -> Iterator[str]:
    number = 1
    while value := iam._p(params, f"{name}.{number}"):
        yield value
        number += 1


def _context(params: Data) -> Iterator[tuple[str, Any]]:
    number = 1
    while key := iam._p(params, f"ContextEntries.member.{number}.ContextKeyName"):
        values = list(_listed(params, f"ContextEntries.member.{number}.ContextKeyValues.member"))
        yield key, values[0] if len(values) == 1 else values
        number += 1
