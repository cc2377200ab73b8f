"""A compute environment that something else created, in the embedded AWS."""

from __future__ import annotations

import base64
import json
from typing import Any

from attach_archives import multipart, shell
from botocore.exceptions import ClientError
from local_aws import LocalAws
from theirs import TRUST

LOGIN = {
    "BATCHREG_PASSWORD": 'pa"ss\\wörd ${AWS::Region}',
    "BATCHREG_USERNAME": "lab",
    "BATCHREG_NO_CHECK": "true",  # there is no such registry
}
KEPT = {"BATCHREG_PASSWORD": "", "BATCHREG_USERNAME": ""}  # a second run needs no credentials
THEIRS = multipart(shell("echo ${HOME} > /etc/theirs"))


def without_template(environment: dict[str, Any]) -> dict[str, Any]:
    """Return an environment without what attaching changes."""
    resources = {**environment["computeResources"]}
    resources.pop("launchTemplate", None)
    return {**environment, "computeResources": resources, "statusReason": ""}


class Lab:
    """An environment, its queue, its role and its launch templates, made with plain boto3."""

    def __init__(self, aws: LocalAws, name: str) -> None:
        self.aws, self.name = aws, name
        self.batch, self.ec2, self.iam = (aws.client(each) for each in ("batch", "ec2", "iam"))
        self.cfn = aws.client("cloudformation")
        self.stack_name = f"batchreg-{name}"
        self.templates: dict[str, str] = {}

    def template(self, name: str, user_data: bytes | None = None, **data: Any) -> str:
        """Create a launch template, or a new version of it, and return its id."""
        if user_data is not None:
            data["UserData"] = base64.b64encode(user_data).decode()
        full = f"{self.name}-{name}"
        if name in self.templates:
            self.ec2.create_launch_template_version(
                LaunchTemplateName=full, LaunchTemplateData=data
            )
        else:
            answer = self.ec2.create_launch_template(
                LaunchTemplateName=full, LaunchTemplateData=data
            )
            self.templates[name] = answer["LaunchTemplate"]["LaunchTemplateId"]
        return self.templates[name]

    def role(self) -> str:
        """Create the instance role, if it is not there, and return its profile's ARN."""
        try:
            self.iam.create_role(
                RoleName=f"{self.name}-ecs", AssumeRolePolicyDocument=json.dumps(TRUST)
            )
            self.iam.attach_role_policy(
                RoleName=f"{self.name}-ecs",
                PolicyArn="arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role",
            )
            self.iam.create_instance_profile(InstanceProfileName=f"{self.name}-ecs")
            self.iam.add_role_to_instance_profile(
                InstanceProfileName=f"{self.name}-ecs", RoleName=f"{self.name}-ecs"
            )
        except self.iam.exceptions.EntityAlreadyExistsException:
            pass
        profile = self.iam.get_instance_profile(InstanceProfileName=f"{self.name}-ecs")
        return str(profile["InstanceProfile"]["Arn"])

    def make(
        self,
        specification: dict[str, Any] | None = None,
        *,
        resources: dict[str, Any] | None = None,
        queue: bool = True,
        **choices: Any,
    ) -> Lab:
        """Create the environment, and a queue of the same name for it."""
        compute: dict[str, Any] = {
            "type": "EC2",
            "allocationStrategy": "BEST_FIT_PROGRESSIVE",
            "minvCpus": 0,
            "maxvCpus": 16,
            "instanceTypes": ["m7i"],
            "subnets": self.aws.subnet_ids,
            "securityGroupIds": self.aws.security_group_ids,
            "instanceRole": self.role(),
            "ec2Configuration": [{"imageType": "ECS_AL2023"}],
            **(resources or {}),
        }
        if specification:
            compute["launchTemplate"] = specification
        request = {
            "computeEnvironmentName": self.name,
            "type": "MANAGED",
            "computeResources": {key: value for key, value in compute.items() if value != ""},
            **choices,
        }
        if request["type"] == "UNMANAGED":
            del request["computeResources"]
        self.batch.create_compute_environment(**request)
        if queue:
            self.batch.create_job_queue(
                jobQueueName=self.name,
                priority=1,
                state="ENABLED",
                computeEnvironmentOrder=[{"order": 1, "computeEnvironment": self.name}],
            )
        return self

    @property
    def environment(self) -> dict[str, Any]:
        (found,) = self.batch.describe_compute_environments(computeEnvironments=[self.name])[
            "computeEnvironments"
        ]
        return dict(found)

    @property
    def specification(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.environment["computeResources"].get("launchTemplate")
        return found

    @property
    def companion(self) -> dict[str, Any] | None:
        try:
            return dict(self.cfn.describe_stacks(StackName=self.stack_name)["Stacks"][0])
        except ClientError:
            return None

    @property
    def outputs(self) -> dict[str, str]:
        assert self.companion
        return {each["OutputKey"]: each["OutputValue"] for each in self.companion["Outputs"]}

    def versions_in_use(self) -> list[dict[str, Any]]:
        """Return the data of the launch template and of each override."""
        whole = self.specification or {}
        found = []
        for each in [whole, *whole.get("overrides", [])]:
            key = "LaunchTemplateId" if each.get("launchTemplateId") else "LaunchTemplateName"
            value = each.get("launchTemplateId") or each["launchTemplateName"]
            (version,) = self.ec2.describe_launch_template_versions(
                **{key: value}, Versions=[each.get("version", "$Default")]
            )["LaunchTemplateVersions"]
            found.append(version["LaunchTemplateData"])
        return found

    def user_data(self) -> bytes:
        """Return the user data that a new instance gets, but for overrides."""
        return base64.b64decode(self.versions_in_use()[0]["UserData"])
