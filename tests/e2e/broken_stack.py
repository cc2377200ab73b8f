"""A stack on the embedded AWS beside a real registry, and faults that can be produced in it."""

from __future__ import annotations

import base64
import json
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from itertools import count
from typing import Any

import schemas
from account import BATCHREG, Account
from lab.environ import clean
from lab.parts import Registry
from local_aws import LocalAws

CANARY = "canary-4711-tweet"
# The registry's image is for this machine.
INSTANCES, OTHERS = {"x86_64": ("m7i", "c7g"), "aarch64": ("m7g", "c7i")}[platform.machine()]
_numbers = count(1)


class Lab:
    """A stack of its own on the shared AWS, and the registry that it is for."""

    def __init__(
        self, aws: LocalAws, registry: Registry, image: str, template: str, **parameters: str
    ) -> None:
        self.aws, self.registry, self.image = aws, registry, image
        self.account = Account(aws, f"lab{next(_numbers)}")
        given = {
            "Username": registry.username,
            "Password": registry.password,
            "RegistryUrl": registry.host,
            "InstanceTypes": INSTANCES,
        }
        self.account.make(template, **{**given, **parameters})
        self.outputs = self.account.outputs
        self.batch, self.ec2 = aws.client("batch"), aws.client("ec2")
        self.iam, self.secrets = aws.client("iam"), aws.client("secretsmanager")
        self.extra_subnet = ""

    def name(self, output: str) -> str:
        return self.outputs[output].rsplit("/", 1)[-1]

    def update(self, **resources: Any) -> None:
        self.batch.update_compute_environment(
            computeEnvironment=self.outputs["ComputeEnvironmentArn"], computeResources=resources
        )

    def job(self, status: str, reason: str = "", *, vcpus: int = 1) -> str:
        """Submit a job and put it where a fault would leave it."""
        definition = self.batch.register_job_definition(
            jobDefinitionName="align",
            type="container",
            containerProperties={
                "image": self.image,
                "command": ["align", CANARY],
                "environment": [{"name": "TOKEN", "value": CANARY}],
                "resourceRequirements": [
                    {"type": "VCPU", "value": str(vcpus)},
                    {"type": "MEMORY", "value": "2048"},
                ],
            },
        )
        self.aws.set_jobs(status, reason=reason)
        job_id: str = self.batch.submit_job(
            jobName="align",
            jobQueue=self.outputs["JobQueueArn"],
            jobDefinition=definition["jobDefinitionArn"],
        )["jobId"]
        self.aws.set_jobs("SUCCEEDED")  # those that come later
        return job_id

    def user_data(self, text: str) -> None:
        """Make a version of the launch template with this user data; $Latest then means it."""
        self.update(
            launchTemplate={
                "launchTemplateId": self.outputs["LaunchTemplateId"],
                "version": "$Latest",
            }
        )
        self.ec2.create_launch_template_version(
            LaunchTemplateId=self.outputs["LaunchTemplateId"],
            LaunchTemplateData={"UserData": base64.b64encode(text.encode()).decode()},
        )

    @property
    def environ(self) -> dict[str, str]:
        """A user's environment: this AWS, and nothing of the machine's own settings."""
        return clean(**self.aws.environ)

    def doctor(
        self, *arguments: str, image: bool = True, endpoint: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        more = {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}
        done = subprocess.run(
            [
                BATCHREG,
                "doctor",
                "--stack-name",
                self.account.name,
                *(("--image", self.image) if image else ()),
                *arguments,
            ],
            text=True,
            capture_output=True,
            timeout=60,
            env={**self.environ, **more},
        )
        schemas.check_lines(arguments, done.stdout)
        return done

    def findings(self, *arguments: str, **options: Any) -> list[dict[str, Any]]:
        """Return what doctor finds, the exit status checked."""
        result = self.doctor("--json", *arguments, **options)
        findings: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
        assert (result.returncode, result.stderr) == (1 if findings else 0, "")
        return findings

    def causes(self, *arguments: str, **options: Any) -> list[str]:
        return [finding["cause"] for finding in self.findings(*arguments, **options)]


@contextmanager
def changed_password(lab: Lab) -> Iterator[None]:
    lab.registry.change_password("another")
    yield
    lab.registry.change_password(CANARY)


@contextmanager
def no_route(lab: Lab) -> Iterator[None]:
    (table,) = lab.ec2.describe_route_tables(
        Filters=[{"Name": "vpc-id", "Values": [lab.aws.vpc_id]}]
    )["RouteTables"]
    route = next(route for route in table["Routes"] if route["GatewayId"] != "local")
    where = {"RouteTableId": table["RouteTableId"], "DestinationCidrBlock": "0.0.0.0/0"}
    lab.ec2.delete_route(**where)
    yield
    lab.ec2.create_route(**where, GatewayId=route["GatewayId"])


@contextmanager
def closed_acl(lab: Lab) -> Iterator[None]:
    (acl,) = lab.ec2.describe_network_acls(
        Filters=[{"Name": "vpc-id", "Values": [lab.aws.vpc_id]}]
    )["NetworkAcls"]
    rule = {"NetworkAclId": acl["NetworkAclId"], "RuleNumber": 50, "Egress": True}
    lab.ec2.create_network_acl_entry(
        **rule,
        Protocol="6",
        RuleAction="deny",
        CidrBlock="0.0.0.0/0",
        PortRange={"From": 443, "To": 443},
    )
    yield
    lab.ec2.delete_network_acl_entry(**rule)


@contextmanager
def closed_egress(lab: Lab) -> Iterator[None]:
    rule = {
        "GroupId": lab.aws.security_group_ids[0],
        "IpPermissions": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    }
    lab.ec2.revoke_security_group_egress(**rule)
    yield
    lab.ec2.authorize_security_group_egress(**rule)


def archive(script: str) -> str:
    parts = MIMEMultipart()
    parts.attach(MIMEText(script, "x-shellscript", "us-ascii"))
    return parts.as_string()


def deny(lab: Lab) -> None:
    lab.iam.put_role_policy(
        RoleName=lab.name("InstanceRoleArn"),
        PolicyName="no",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Deny", "Action": "secretsmanager:*", "Resource": "*"}],
            }
        ),
    )


def too_large(lab: Lab) -> None:
    """Limit the environment to less than a job asks for, and than an instance type has."""
    lab.update(maxvCpus=32)
    lab.job("RUNNABLE", vcpus=64)


OLD_SCRIPT = "#!/bin/bash\ndocker login -u lab -p $(aws secretsmanager get-secret-value)\n"
FAULTS: dict[str, Callable[[Lab], Any]] = {
    "wrong-credentials": changed_password,
    "wrong-architecture": lambda lab: lab.update(instanceTypes=[OTHERS]),
    "secret-missing": lambda lab: lab.secrets.delete_secret(
        SecretId=lab.outputs["RegistrySecretArn"], ForceDeleteWithoutRecovery=True
    ),
    "secret-deleted": lambda lab: lab.secrets.delete_secret(
        SecretId=lab.outputs["RegistrySecretArn"]
    ),
    "secret-not-json": lambda lab: lab.secrets.put_secret_value(
        SecretId=lab.outputs["RegistrySecretArn"], SecretString=CANARY
    ),
    "secret-incomplete": lambda lab: lab.secrets.put_secret_value(
        SecretId=lab.outputs["RegistrySecretArn"],
        SecretString=json.dumps({"user": "lab", "token": CANARY, CANARY: CANARY}),
    ),
    "role-denied": deny,
    "profile-missing": lambda lab: lab.iam.remove_role_from_instance_profile(
        InstanceProfileName=lab.name("InstanceProfileArn"), RoleName=lab.name("InstanceRoleArn")
    ),
    "user-data-not-mime": lambda lab: lab.user_data(OLD_SCRIPT),
    "user-data-without-credentials": lambda lab: lab.user_data(archive(OLD_SCRIPT)),
    "user-data-blocks": lambda lab: lab.user_data(
        lab.account.user_data.replace("#!/bin/sh\n", "#!/bin/sh\nsystemctl restart ecs\n")
    ),
    "no-route": no_route,
    "egress-closed": closed_egress,
    "acl-closed": closed_acl,
    "environment-disabled": lambda lab: lab.batch.update_compute_environment(
        computeEnvironment=lab.outputs["ComputeEnvironmentArn"], state="DISABLED"
    ),
    "queue-disabled": lambda lab: lab.batch.update_job_queue(
        jobQueue=lab.outputs["JobQueueArn"], state="DISABLED"
    ),
    "job-too-large": too_large,
    "no-capacity": lambda lab: lab.job(
        "RUNNABLE",
        "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity "
        "requested for instance type [m7i.large]",
    ),
    "disk-full": lambda lab: lab.job(
        "FAILED", "CannotPullContainerError: failed to register layer: no space left on device"
    ),
}
