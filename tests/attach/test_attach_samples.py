"""Environments from templates like AWS's own samples, deployed by CloudFormation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attach_lab import TRUST, Lab

BATCH_TRUST = json.loads(json.dumps(TRUST).replace("ec2.", "batch."))

# The resources of "Managed batch environment with a single job queue".
NETWORK: dict[str, Any] = {
    "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.9.0.0/16"}},
    "InternetGateway": {"Type": "AWS::EC2::InternetGateway"},
    "GatewayAttachment": {
        "Type": "AWS::EC2::VPCGatewayAttachment",
        "Properties": {"VpcId": {"Ref": "Vpc"}, "InternetGatewayId": {"Ref": "InternetGateway"}},
    },
    "RouteTable": {"Type": "AWS::EC2::RouteTable", "Properties": {"VpcId": {"Ref": "Vpc"}}},
    "Route": {
        "Type": "AWS::EC2::Route",
        "DependsOn": "GatewayAttachment",
        "Properties": {
            "RouteTableId": {"Ref": "RouteTable"},
            "DestinationCidrBlock": "0.0.0.0/0",
            "GatewayId": {"Ref": "InternetGateway"},
        },
    },
    "Subnet": {
        "Type": "AWS::EC2::Subnet",
        "Properties": {
            "VpcId": {"Ref": "Vpc"},
            "CidrBlock": "10.9.0.0/24",
            "MapPublicIpOnLaunch": True,
        },
    },
    "SubnetRouteTable": {
        "Type": "AWS::EC2::SubnetRouteTableAssociation",
        "Properties": {"SubnetId": {"Ref": "Subnet"}, "RouteTableId": {"Ref": "RouteTable"}},
    },
    "SecurityGroup": {
        "Type": "AWS::EC2::SecurityGroup",
        "Properties": {"GroupDescription": "Batch", "VpcId": {"Ref": "Vpc"}},
    },
}
ROLES: dict[str, Any] = {
    "BatchServiceRole": {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": BATCH_TRUST,
            "ManagedPolicyArns": ["arn:aws:iam::aws:policy/service-role/AWSBatchServiceRole"],
        },
    },
    "EcsInstanceRole": {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": TRUST,
            "ManagedPolicyArns": [
                "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
            ],
        },
    },
    "IamInstanceProfile": {
        "Type": "AWS::IAM::InstanceProfile",
        "Properties": {"Roles": [{"Ref": "EcsInstanceRole"}]},
    },
}


def deploy(lab: Lab, resources: dict[str, Any], **environment: Any) -> Lab:
    """Deploy a sample with these resources of the environment; return its environment's lab."""
    template = {
        "Resources": {
            **NETWORK,
            **ROLES,
            "ComputeEnvironment": {
                "Type": "AWS::Batch::ComputeEnvironment",
                "Properties": {
                    "Type": "MANAGED",
                    **environment,
                    "ComputeResources": {
                        "Type": "EC2",
                        "MinvCpus": 0,
                        "DesiredvCpus": 0,
                        "MaxvCpus": 64,
                        "InstanceTypes": ["optimal"],
                        "Subnets": [{"Ref": "Subnet"}],
                        "SecurityGroupIds": [{"Ref": "SecurityGroup"}],
                        "InstanceRole": {"Ref": "IamInstanceProfile"},
                        **resources,
                    },
                },
            },
            "JobQueue": {
                "Type": "AWS::Batch::JobQueue",
                "Properties": {
                    "Priority": 1,
                    "ComputeEnvironmentOrder": [
                        {"Order": 1, "ComputeEnvironment": {"Ref": "ComputeEnvironment"}}
                    ],
                },
            },
        },
        "Outputs": {name: {"Value": {"Ref": name}} for name in ("ComputeEnvironment", "JobQueue")},
    }
    lab.cfn.create_stack(
        StackName=lab.name, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"]
    )
    waiter = lab.cfn.get_waiter("stack_create_complete")
    waiter.wait(StackName=lab.name, WaiterConfig={"Delay": 0.05})
    (stack,) = lab.cfn.describe_stacks(StackName=lab.name)["Stacks"]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    return Lab(lab.aws, outputs["ComputeEnvironment"].rpartition("/")[2])


def order(lab: Lab) -> list[list[str]]:
    """Return the environments of each queue that uses this environment."""
    orders = [
        [entry["computeEnvironment"] for entry in queue["computeEnvironmentOrder"]]
        for queue in lab.batch.describe_job_queues()["jobQueues"]
    ]
    return [each for each in orders if lab.environment["computeEnvironmentArn"] in each]


def stack_resources(lab: Lab) -> list[tuple[str, str]]:
    """Return the id and the status of each resource of the sample's stack."""
    found = lab.cfn.describe_stack_resources(StackName=lab.name)["StackResources"]
    return [(each["PhysicalResourceId"], each["ResourceStatus"]) for each in found]


@pytest.mark.parametrize(
    "environment",
    [
        {"resources": {"AllocationStrategy": "BEST_FIT_PROGRESSIVE"}},
        {
            "resources": {
                "AllocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED",
                "Type": "SPOT",
                "BidPercentage": 80,
                "Ec2Configuration": [{"ImageType": "ECS_AL2023"}],
            },
            "ReplaceComputeEnvironment": False,
            "UpdatePolicy": {"TerminateJobsOnUpdate": False, "JobExecutionTimeoutMinutes": 30},
            "Tags": {"team": "lab"},
        },
    ],
    ids=["on demand", "Spot"],
)
def test_environment_of_a_sample_is_attached_and_comes_back(lab, run, environment):
    """Its stack knows nothing of it."""
    theirs = deploy(lab, **environment)
    before, stack = theirs.environment, stack_resources(lab)
    assert "launchTemplate" not in before["computeResources"]
    run("attach", theirs.name, "--yes")
    attached = theirs.environment
    assert b"/opt/batchreg/" in theirs.user_data()
    del attached["computeResources"]["launchTemplate"]
    assert {**attached, "statusReason": ""} == {**before, "statusReason": ""}
    assert stack_resources(lab) == stack
    run("detach", theirs.name, "--yes")
    assert {**theirs.environment, "statusReason": ""} == {**before, "statusReason": ""}
    assert theirs.companion is None


def test_environment_of_an_old_sample_is_refused_with_the_way_that_works(lab, run):
    """They have a service role of their own, and no allocation strategy, which is BEST_FIT."""
    theirs = deploy(lab, {}, ServiceRole={"Fn::GetAtt": ["BatchServiceRole", "Arn"]})
    before, queue = theirs.environment, order(theirs)
    refused = run("attach", theirs.name, "--yes", status=1).stderr
    assert "not the service-linked role" in refused
    assert "allocation strategy is BEST_FIT." in refused
    assert "Run the same command with --blue-green" in refused
    assert (theirs.environment, theirs.companion) == (before, None)
    run("attach", theirs.name, "--yes", "--blue-green")
    assert [theirs.outputs["ComputeEnvironmentArn"], *queue[0]] in order(theirs)
    run("detach", theirs.name, "--yes")
    assert (theirs.environment, theirs.companion, order(theirs)) == (before, None, queue)
