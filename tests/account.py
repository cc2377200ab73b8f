"""What is in the embedded AWS, as tests look at it: one stack and its resources."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from local_aws import LocalAws

PASSWORD = 'pa"ss\\wörd ${AWS::Region}'
# No registry is there to be asked, but for the tests that start one.
LOGIN = {"BATCHREG_USERNAME": "lab", "BATCHREG_PASSWORD": PASSWORD, "BATCHREG_NO_CHECK": "1"}

BATCHREG = str(Path(sys.executable).with_name("batchreg"))
# Runs `batchreg` as a user does.
Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Account:
    """One stack, there or not, and how to make it without batchreg."""

    def __init__(self, aws: LocalAws, name: str) -> None:
        self.aws, self.name = aws, name
        self.cfn = aws.client("cloudformation")

    @property
    def stack(self) -> dict[str, Any] | None:
        try:
            return self.cfn.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError:
            return None

    @property
    def outputs(self) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self.stack["Outputs"]}

    @property
    def parameters(self) -> dict[str, str]:
        return {each["ParameterKey"]: each["ParameterValue"] for each in self.stack["Parameters"]}

    @property
    def environment(self) -> dict[str, Any]:
        (environment,) = self.aws.client("batch").describe_compute_environments(
            computeEnvironments=[self.outputs["ComputeEnvironmentArn"]]
        )["computeEnvironments"]
        return environment

    @property
    def secret(self) -> dict[str, str]:
        return json.loads(
            self.aws.client("secretsmanager").get_secret_value(
                SecretId=self.outputs["RegistrySecretArn"]
            )["SecretString"]
        )

    @property
    def user_data(self) -> str:
        """Return the user data of the launch template's version that the environment uses."""
        wanted = self.environment["computeResources"]["launchTemplate"]
        (version,) = self.aws.client("ec2").describe_launch_template_versions(
            LaunchTemplateId=wanted["launchTemplateId"], Versions=[wanted["version"]]
        )["LaunchTemplateVersions"]
        return base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode()

    def make(self, body: str, **parameters: str) -> None:
        """Make the stack by CloudFormation alone, which is quicker than a deploy."""
        values = {
            "Username": "lab",
            "Password": PASSWORD,
            "SubnetIDs": ",".join(self.aws.subnet_ids),
            "SecurityGroupIDs": ",".join(self.aws.security_group_ids),
            **parameters,
        }
        self.cfn.create_stack(
            StackName=self.name,
            TemplateBody=body,
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in values.items()
                if value
            ],
        )
        self.cfn.get_waiter("stack_create_complete").wait(
            StackName=self.name, WaiterConfig={"Delay": 0.05}
        )


def submit(account: Account, *statuses: str) -> list[str]:
    """Put a job of each status into the stack's queue; return their ids."""
    batch = account.aws.client("batch")
    definition = batch.register_job_definition(
        jobDefinitionName=account.name,
        type="container",
        containerProperties={
            "image": "x",
            "resourceRequirements": [
                {"type": "VCPU", "value": "1"},
                {"type": "MEMORY", "value": "128"},
            ],
        },
    )["jobDefinitionArn"]
    return [
        batch.submit_job(
            jobName="job",
            jobQueue=account.outputs["JobQueueArn"],
            jobDefinition=definition,
            parameters={"local-aws-status": status},
        )["jobId"]
        for status in statuses
    ]
