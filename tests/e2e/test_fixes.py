"""Every fix that doctor prints is run as it is printed: the finding is gone, and nothing was lost."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from broken_stack import CANARY, FAULTS, OLD_SCRIPT, Lab, archive
from lab.parts import Registry
from local_aws import LocalAws
from real_parts import require
from terminal import Terminal

from batchreg.render import template, text
from batchreg.render.settings import Settings

OTHER, OTHER_PASSWORD = "registry.example.com", "quiet-4712-owl"
NEW_PASSWORD = "another"
BIN = Path(sys.executable).parent


class Fix(NamedTuple):
    """A fault, and what the user types where the printed commands ask."""

    produce: Callable[[Lab], Any]
    answers: tuple[tuple[str, str], ...] = ()
    image: bool = True


YES = ("[y/N]", "y\n")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalAws, Registry, str]]:
    """An AWS whose network may be broken, and a registry whose password may be changed."""
    require("registry")
    folder = tmp_path_factory.mktemp("registry")
    with LocalAws() as aws, Registry("ci-robot", CANARY, directory=folder) as registry:
        yield aws, registry, registry.push("lab/align", "3")


@pytest.fixture(scope="module")
def two() -> str:
    """The template of a stack with two registries."""
    return text.to_yaml(template.build(Settings(slots=(1, 2))))


@pytest.fixture
def lab(parts: tuple[LocalAws, Registry, str], two: str) -> Iterator[Lab]:
    """A stack with two registries, of which a fix for one must leave the other alone."""
    aws, registry, image = parts
    subnet = aws.client("ec2").create_subnet(VpcId=aws.vpc_id, CidrBlock=free_block(aws))
    lab = Lab(
        aws,
        registry,
        image,
        two,
        Username2="ann",
        Password2=OTHER_PASSWORD,
        RegistryUrl2=OTHER,
        SubnetIDs=",".join([*aws.subnet_ids, subnet["Subnet"]["SubnetId"]]),
    )
    aws.client("ec2").modify_subnet_attribute(
        SubnetId=subnet["Subnet"]["SubnetId"], MapPublicIpOnLaunch={"Value": True}
    )
    lab.extra_subnet = subnet["Subnet"]["SubnetId"]
    assert lab.causes() == []
    yield lab
    allow_egress(lab)
    if registry.password != CANARY:
        registry.change_password(CANARY)


def free_block(aws: LocalAws) -> str:
    """Return a block of addresses that no subnet of the VPC has."""
    taken = {one["CidrBlock"] for one in aws.client("ec2").describe_subnets()["Subnets"]}
    return next(
        block
        for block in (f"172.31.{number}.0/24" for number in range(200, 255))
        if block not in taken
    )


def queue_gone(lab: Lab) -> None:
    queue = lab.outputs["JobQueueArn"]
    lab.batch.update_job_queue(jobQueue=queue, state="DISABLED")
    lab.batch.delete_job_queue(jobQueue=queue)


def queue_elsewhere(lab: Lab) -> None:
    environment = lab.batch.describe_compute_environments(
        computeEnvironments=[lab.outputs["ComputeEnvironmentArn"]]
    )["computeEnvironments"][0]
    name = f"{lab.account.name}-other"
    lab.batch.create_compute_environment(
        computeEnvironmentName=name,
        type="MANAGED",
        computeResources=environment["computeResources"],
    )
    lab.batch.update_job_queue(
        jobQueue=lab.outputs["JobQueueArn"],
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": name}],
    )


def environment_gone(lab: Lab) -> None:
    """Put another environment behind the queue, without which AWS Batch deletes none."""
    queue_elsewhere(lab)
    environment = lab.outputs["ComputeEnvironmentArn"]
    lab.batch.update_compute_environment(computeEnvironment=environment, state="DISABLED")
    lab.batch.delete_compute_environment(computeEnvironment=environment)


def cluster_gone(lab: Lab) -> None:
    cluster = lab.account.environment["ecsClusterArn"]
    lab.aws.client("ecs").delete_cluster(cluster=cluster)


def policy_gone(lab: Lab) -> None:
    lab.iam.delete_role_policy(RoleName=lab.name("InstanceRoleArn"), PolicyName="ReadRegistryLogin")


def agent_policy_gone(lab: Lab) -> None:
    role = lab.name("InstanceRoleArn")
    (policy,) = lab.iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    lab.iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])


def trust_of_others(lab: Lab) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    lab.iam.update_assume_role_policy(
        RoleName=lab.name("InstanceRoleArn"),
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )


def profile_gone(lab: Lab) -> None:
    profile, role = lab.name("InstanceProfileArn"), lab.name("InstanceRoleArn")
    lab.iam.remove_role_from_instance_profile(InstanceProfileName=profile, RoleName=role)
    lab.iam.delete_instance_profile(InstanceProfileName=profile)


def other_role(lab: Lab) -> None:
    profile, role = lab.name("InstanceProfileArn"), lab.name("InstanceRoleArn")
    lab.iam.remove_role_from_instance_profile(InstanceProfileName=profile, RoleName=role)
    lab.iam.add_role_to_instance_profile(
        InstanceProfileName=profile, RoleName=lab.name("JobExecutionRoleArn")
    )


def version(lab: Lab, **data: Any) -> int:
    """Make a version of the launch template by hand, and let the environment use it."""
    made = lab.ec2.create_launch_template_version(
        LaunchTemplateId=lab.outputs["LaunchTemplateId"], SourceVersion="1", LaunchTemplateData=data
    )["LaunchTemplateVersion"]["VersionNumber"]
    lab.update(
        launchTemplate={"launchTemplateId": lab.outputs["LaunchTemplateId"], "version": str(made)}
    )
    return int(made)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def newer_version(lab: Lab) -> None:
    """Make a version by hand that nothing uses yet."""
    lab.ec2.create_launch_template_version(
        LaunchTemplateId=lab.outputs["LaunchTemplateId"],
        SourceVersion="1",
        LaunchTemplateData={"UserData": encoded(archive(OLD_SCRIPT))},
    )


def subnet_gone(lab: Lab) -> None:
    lab.ec2.delete_subnet(SubnetId=lab.extra_subnet)


def no_public_addresses(lab: Lab) -> None:
    lab.ec2.modify_subnet_attribute(SubnetId=lab.extra_subnet, MapPublicIpOnLaunch={"Value": False})


def no_dns(lab: Lab) -> None:
    lab.ec2.modify_vpc_attribute(VpcId=lab.aws.vpc_id, EnableDnsSupport={"Value": False})


def invalidated(lab: Lab) -> None:
    """Let instances come and go without joining, as long as AWS Batch puts up with it."""
    for _ in range(2):
        lab.aws.lost(lab.outputs["ComputeEnvironmentArn"], "powered off")


EVERYTHING = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


def no_egress(lab: Lab) -> None:
    lab.ec2.revoke_security_group_egress(
        GroupId=lab.aws.security_group_ids[0], IpPermissions=EVERYTHING
    )


def allow_egress(lab: Lab) -> None:
    """Put back what no_egress took."""
    group = lab.aws.security_group_ids[0]
    (found,) = lab.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    if not any(rule["IpProtocol"] == "-1" for rule in found["IpPermissionsEgress"]):
        lab.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=EVERYTHING)


def new_value(lab: Lab, **value: Any) -> None:
    """Change the secret by hand; its parameter and the registry still have the password."""
    lab.secrets.put_secret_value(SecretId=lab.outputs["RegistrySecretArn"], **value)


ROTATED = (("New password", f"{CANARY}\n"), YES)
FIXES: dict[str, Fix] = {
    "environment-invalidated": Fix(invalidated, (YES,)),
    "environment-missing": Fix(environment_gone, (YES,)),
    "cluster-missing": Fix(cluster_gone, (YES,)),
    "environment-disabled": Fix(FAULTS["environment-disabled"]),
    "queue-disabled": Fix(FAULTS["queue-disabled"]),
    "queue-missing": Fix(queue_gone),
    "queue-elsewhere": Fix(queue_elsewhere),
    "secret-deleted": Fix(FAULTS["secret-deleted"]),
    "secret-missing": Fix(
        FAULTS["secret-missing"],
        (YES, ("User name", "ci-robot\n"), ("Password", f"{CANARY}\n"), YES),
    ),
    "secret-empty": Fix(lambda lab: new_value(lab, SecretBinary=b"\0"), ROTATED),
    "secret-not-json": Fix(FAULTS["secret-not-json"], ROTATED),
    "secret-incomplete": Fix(FAULTS["secret-incomplete"], ROTATED),
    "secret-unusable": Fix(
        lambda lab: new_value(lab, SecretString='{"username": "ci-robot", "password": ""}'), ROTATED
    ),
    "wrong-credentials": Fix(
        lambda lab: lab.registry.change_password(NEW_PASSWORD),
        (("New password", f"{NEW_PASSWORD}\n"), YES),
    ),
    "role-denied": Fix(policy_gone),
    "role-without-ecs": Fix(agent_policy_gone),
    "role-not-trusted": Fix(trust_of_others),
    "profile-missing": Fix(profile_gone),
    "profile-missing, another role": Fix(other_role),
    "profile-missing, no role": Fix(FAULTS["profile-missing"]),
    "user-data-not-mime": Fix(FAULTS["user-data-not-mime"]),
    "user-data-without-credentials": Fix(
        lambda lab: version(lab, UserData=encoded(archive(OLD_SCRIPT)))
    ),
    "user-data-blocks": Fix(FAULTS["user-data-blocks"]),
    "machine-image-custom": Fix(lambda lab: version(lab, ImageId="ami-0123456789abcdef0")),
    "launch-template-old": Fix(newer_version),
    "subnet-missing": Fix(subnet_gone, (YES,)),
    "no-public-address": Fix(no_public_addresses),
    "dns-off": Fix(no_dns),
    "egress-closed": Fix(no_egress),
    "job-too-large": Fix(FAULTS["job-too-large"], (YES,)),
}
# Without a command: doctor says what a person has to do.
STEPS = {
    "role-denied": FAULTS["role-denied"],  # an explicit deny
    "no-route": FAULTS["no-route"],
    "acl-closed": FAULTS["acl-closed"],
    "wrong-architecture": FAULTS["wrong-architecture"],
    "no-capacity": FAULTS["no-capacity"],
}


def run(lab: Lab, command: str, answers: tuple[tuple[str, str], ...], folder: Path) -> None:
    """Run a command in a shell at a terminal, as a user who has copied it."""
    path = f"{BIN}:{lab.environ['PATH']}"
    terminal = Terminal(
        "/bin/bash", "-c", command, environ={**lab.environ, "PATH": path}, folder=folder
    )
    try:
        for prompt, answer in answers:
            terminal.expect(prompt)
            terminal.type(answer)
        assert terminal.wait(40) == 0, terminal.output + terminal.stdout
    finally:
        terminal.close()


def passwords(lab: Lab) -> dict[str, str]:
    """Return {registry: password} of the secrets that the stack now has."""
    found = {}
    for name, arn in lab.account.outputs.items():
        if name.startswith("RegistrySecret"):
            fields = json.loads(lab.secrets.get_secret_value(SecretId=arn)["SecretString"])
            found[fields["registry_url"]] = fields["password"]
    return found


def assert_nothing_was_lost(lab: Lab, queue: str) -> None:
    """All registries have their credentials, instances fetch them, and the queue takes jobs."""
    assert passwords(lab) == {lab.registry.host: lab.registry.password, OTHER: OTHER_PASSWORD}
    for name, arn in lab.account.outputs.items():
        if name.startswith("RegistrySecret"):
            assert f"\n--secret-id={arn}\n" in lab.account.user_data
    environment = lab.account.environment
    assert (environment["status"], environment["state"]) == ("VALID", "ENABLED")
    (found,) = lab.batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
    assert (found["status"], found["state"]) == ("VALID", "ENABLED")
    first = min(found["computeEnvironmentOrder"], key=lambda order: order["order"])
    assert first["computeEnvironment"] == environment["computeEnvironmentArn"]


@pytest.mark.parametrize("name", FIXES)
def test_fix_works_as_printed_and_costs_nothing(lab: Lab, name: str, tmp_path: Path) -> None:
    """The commands are taken from the output as they are; only what they ask for is typed."""
    fix, cause = FIXES[name], name.partition(",")[0]
    queue = lab.outputs["JobQueueArn"]
    fix.produce(lab)
    finding = lab.findings(image=fix.image)[0]
    assert finding["cause"] == cause
    printed = lab.doctor(image=fix.image).stdout
    answers = list(fix.answers)
    for command in finding["fix"]:
        assert f"   Fix: {command}\n" in printed
        run(lab, command, tuple(answers), tmp_path)
    assert finding["fix"]
    assert lab.causes(image=fix.image) == []
    assert_nothing_was_lost(lab, queue)


@pytest.mark.parametrize("cause", STEPS)
def test_what_no_command_can_fix_is_said_plainly(lab: Lab, cause: str) -> None:
    """A command that does not help costs more than a sentence."""
    fault = STEPS[cause](lab)
    if hasattr(fault, "__enter__"):
        with fault:
            finding = lab.findings()[0]
    else:
        finding = lab.findings()[0]
    assert (finding["cause"], finding["fix"]) == (cause, [])
    assert finding["steps"]


def test_registry_is_added_and_the_others_stay(lab: Lab, tmp_path: Path) -> None:
    """The list that --registry gives is complete: one that it leaves out would be removed."""
    with Registry("somebody", "else", directory=tmp_path / "third", host="127.0.0.2") as third:
        image = third.push("lab/align", "3")
        finding = lab.findings("--image", image, image=False)[0]
        assert finding["cause"] == "no-credentials-for-registry"
        (command,) = finding["fix"]
        answers = (("User name", "somebody\n"), ("Password", "else\n"), YES)
        run(lab, command, answers, tmp_path)
        assert lab.causes("--image", image, image=False) == []
    assert passwords(lab) == {lab.registry.host: CANARY, OTHER: OTHER_PASSWORD, third.host: "else"}
