"""What an AWS account has and ministack lacks: a way out of the default VPC, AWS's own roles.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

from typing import Any

from botocore.loaders import Loader
from ministack.core import router
from ministack.core.responses import now_iso
from ministack.services import ec2, iam

from local_aws import policies
from local_aws.environments import LINKED_ROLE

Data = dict[str, Any]


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


def _link(service: str, name: str) -> None:
    """Make a service-linked role."""
    arn = LINKED_ROLE.replace("batch.amazonaws.com/AWSServiceRoleForBatch", f"{service}/{name}")
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": service}}
    iam._roles[name] = {
        "RoleName": name,
        "RoleId": "AROAAWSSERVICEROLE000",
        "Arn": arn,
        "Path": f"/aws-service-role/{service}/",
        "CreateDate": now_iso(),
        "AssumeRolePolicyDocument": policies.document([trust]),
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
