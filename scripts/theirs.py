"""What people have before batchreg: a compute environment with a queue, made by AWS's own calls."""

from __future__ import annotations

import json

from local_aws import LocalAws

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


def make_queue(aws: LocalAws, name: str) -> None:
    """Create a role, an instance profile, an environment and a queue, all of one name."""
    iam, batch = aws.client("iam"), aws.client("batch")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    batch.create_compute_environment(
        computeEnvironmentName=name,
        type="MANAGED",
        computeResources={
            "type": "EC2",
            "allocationStrategy": "BEST_FIT_PROGRESSIVE",
            "minvCpus": 0,
            "maxvCpus": 16,
            "instanceTypes": ["m7i"],
            "instanceRole": name,
            "subnets": aws.subnet_ids,
            "securityGroupIds": aws.security_group_ids,
        },
    )
    order = [{"order": 1, "computeEnvironment": name}]
    batch.create_job_queue(jobQueueName=name, priority=1, computeEnvironmentOrder=order)
