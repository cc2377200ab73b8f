"""What an AWS account has and ministack lacks: a way out of the default VPC, AWS Batch's own role,
and policies that count when IAM simulates them.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from typing import Any

from botocore.loaders import Loader
from ministack.core import router
from ministack.core.responses import now_iso
from ministack.services import ec2, iam

from local_aws.environments import LINKED_ROLE

Data = dict[str, Any]

# What these managed policies of AWS's come to, as far as the ECS agent and jobs need them.
MANAGED = {
    "AmazonEC2SpotFleetTaggingRole": [
        "ec2:Describe*",
        "ec2:RequestSpotInstances",
        "ec2:TerminateInstances",
    ],
    "AWSBatchServiceRole": ["autoscaling:*", "ec2:*", "ecs:*"],
    "AmazonEC2ContainerServiceforEC2Role": ["ecs:*", "ecr:*", "logs:*", "ec2:DescribeTags"],
    "AmazonECSTaskExecutionRolePolicy": ["ecr:*", "logs:*"],
}


def install() -> None:
    """Add it to ministack, before the server starts."""
    # To know a service that it lacks, ministack would load botocore's models of all, and say nothing
    # to anybody for several seconds.
    router._KNOWN_AWS_SERVICE_NAMES = frozenset({*Loader().list_available_services("service-2")})
    router._KNOWN_AWS_SERVICE_NAMES |= {"servicequotas"}  # signs by another name
    ec2._ensure_defaults_initialized()
    ec2._route_tables[ec2._DEFAULT_RTB_ID]["Routes"].append(
        {
            "DestinationCidrBlock": "0.0.0.0/0",
            "GatewayId": ec2._DEFAULT_IGW_ID,
            "Origin": "CreateRoute",
            "State": "active",
        }
    )
    # On AWS, the first compute environment and the first Spot instance make them.
    for service, name in (("batch", "Batch"), ("spot", "EC2Spot")):
        _link(f"{service}.amazonaws.com", f"AWSServiceRoleFor{name}")
    iam._IAM_HANDLERS["SimulatePrincipalPolicy"] = simulate


def _link(service: str, name: str) -> None:
    """Make a service-linked role."""
    iam._roles[name] = {
        "RoleName": name,
        "RoleId": "AROAAWSSERVICEROLE000",
        "Arn": LINKED_ROLE.replace(
            "batch.amazonaws.com/AWSServiceRoleForBatch", f"{service}/{name}"
        ),
        "Path": f"/aws-service-role/{service}/",
        "CreateDate": now_iso(),
        "AssumeRolePolicyDocument": _document("sts:AssumeRole", Principal={"Service": service}),
        "Description": "",
        "MaxSessionDuration": 3600,
        "AttachedPolicies": [],
        "InlinePolicies": {},
        "Tags": [],
    }


def network() -> Data:
    """Name the default VPC, which is there from the start, as in a fresh AWS account."""
    return {
        "vpc_id": ec2._DEFAULT_VPC_ID,
        "subnet_ids": [ec2._DEFAULT_SUBNET_ID, ec2._DEFAULT_SUBNET_ID_B, ec2._DEFAULT_SUBNET_ID_C],
        "security_group_ids": [ec2._DEFAULT_SG_ID],
    }


def simulate(params: Data) -> Any:
    """Answer SimulatePrincipalPolicy by what the role's policies say; conditions count as met."""
    role = iam._roles.get(iam._p(params, "PolicySourceArn").rsplit("/", 1)[-1])
    if role is None:
        return iam._error(404, "NoSuchEntity", "The role cannot be found.", ns="iam")
    actions = list(_listed(params, "ActionNames"))
    results = "".join(
        f"<member><EvalActionName>{action}</EvalActionName>"
        f"<EvalResourceName>{resource}</EvalResourceName>"
        f"<EvalDecision>{_decision(role, action, resource)}</EvalDecision></member>"
        for action in actions
        for resource in list(_listed(params, "ResourceArns")) or ["*"]
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
    while value := iam._p(params, f"{name}.member.{number}"):
        yield value
        number += 1


def _decision(role: Data, action: str, resource: str) -> str:
    effects = {
        statement["Effect"]
        for statement in _statements(role)
        if _fits(statement.get("Action", []), action)
        and (resource == "*" or _fits(statement.get("Resource", []), resource))
    }
    if "Deny" in effects:
        return "explicitDeny"
    return "allowed" if "Allow" in effects else "implicitDeny"


def _statements(role: Data) -> Iterator[Data]:
    for text in role["InlinePolicies"].values():
        found = json.loads(text)["Statement"]
        yield from [found] if isinstance(found, dict) else found
    for attached in role["AttachedPolicies"]:
        actions = MANAGED.get(attached.rsplit("/", 1)[-1], [])
        yield {"Effect": "Allow", "Action": actions, "Resource": "*"}


def _fits(patterns: Any, value: str) -> bool:
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(value, pattern) for pattern in listed)


def _document(action: str, **more: Any) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, **more}]}
    )
