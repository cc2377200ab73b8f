"""What a deploy checks before it changes anything, against the embedded AWS and a registry."""

from __future__ import annotations

import json
import threading
import time

import botocore.session
import pytest
from botocore.stub import Stubber
from registry_server import RegistryServer, index

from batchreg.registry.logins import Credentials
from batchreg.registry.public import misspelt
from batchreg.stack import preflight
from batchreg.stack.preflight import Check, Problem

REGION = "us-east-1"


def said(checks: list[Check], **options: float) -> list[tuple[bool, str]]:
    return [(each.certain, str(each)) for each in preflight.run(checks, **options)]


@pytest.fixture
def other_vpc(aws):
    """A second VPC, with a subnet and its default security group."""
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="other", Description="other", VpcId=vpc)["GroupId"]
    yield vpc, subnet, group
    ec2.delete_security_group(GroupId=group)
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)


def network(aws, subnets, groups):
    return preflight.network(aws.client("ec2"), REGION, subnets, groups)


def test_a_network_that_works_is_no_problem(aws):
    assert said(network(aws, aws.subnet_ids, aws.security_group_ids)) == []


def test_what_does_not_exist_is_named_all_at_once(aws):
    """One run tells everything: people fix it in one go."""
    assert said(network(aws, [*aws.subnet_ids, "subnet-0dead"], ["sg-0dead"])) == [
        (
            True,
            "There is no subnet subnet-0dead in us-east-1. "
            "Check --subnet-id, --region and --profile.",
        ),
        (
            True,
            "There is no security group sg-0dead in us-east-1. "
            "Check --security-group-id, --region and --profile.",
        ),
    ]


def test_subnets_of_two_vpcs_are_refused(aws, other_vpc):
    vpc, subnet, _ = other_vpc
    found = said(network(aws, [aws.subnet_ids[0], subnet], aws.security_group_ids))
    assert found[0][0]
    assert f"{subnet} in {vpc}" in found[0][1]
    assert found[0][1].endswith("Choose subnets of one VPC.")


def test_a_security_group_of_another_vpc_is_refused(aws, other_vpc):
    vpc, _, group = other_vpc
    ((certain, text),) = said(network(aws, aws.subnet_ids, [group]))
    assert certain
    assert text.startswith(f"Security group {group} is in {vpc}, but the subnets are in vpc-")


def test_a_subnet_without_a_way_out_is_a_warning(aws, other_vpc):
    """An endpoint or a proxy that we know nothing of may serve it."""
    _, subnet, group = other_vpc
    assert said(network(aws, [subnet], [group])) == [
        (
            False,
            f"Subnet {subnet} has no route out of its VPC. "
            "Instances there can reach neither AWS nor a registry on the internet.",
        )
    ]


@pytest.fixture
def secret(aws, stack):
    """Make secrets of the user's own; they are removed at the end."""
    manager, made = aws.client("secretsmanager"), []

    def make(text: str) -> str:
        name = f"{stack}/{len(made)}"
        made.append(manager.create_secret(Name=name, SecretString=text)["ARN"])
        return made[-1]

    yield make
    for arn in made:
        manager.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


def secrets(aws, *arns):
    return preflight.secrets(aws.client("secretsmanager"), aws.client("kms"), REGION, arns)


def test_a_secret_that_works_is_no_problem(aws, secret):
    arn = secret(json.dumps({"username": "lab", "password": "x", "registry_url": "ghcr.io"}))
    assert said(secrets(aws, arn)) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hunter2", "it is not JSON text like"),
        ('{"username": "lab"}', "it has no 'password'"),
        ('{"username": "lab", "password": "hunter2", "registry_url": "myhost"}', "registry_url"),
    ],
)
def test_a_secret_of_another_form_is_refused_and_not_quoted(aws, secret, text, why):
    arn = secret(text)
    ((certain, line),) = said(secrets(aws, arn))
    assert certain
    assert line.startswith(f"Secret {arn} cannot be used: {why}")
    assert "hunter2" not in line


def test_a_missing_secret_and_one_of_another_region_are_refused(aws):
    arn = "arn:aws:secretsmanager:{}:123456789012:secret:nothing-AbCdEf"
    here, elsewhere = arn.format(REGION), arn.format("eu-west-1")
    assert said(secrets(aws, here, elsewhere)) == [
        (True, f"There is no secret {here}. Check --secret-arn, --region and --profile."),
        (
            True,
            f"Secret {elsewhere} is in eu-west-1, the stack is in us-east-1. "
            "Replicate the secret to us-east-1, and give the ARN of the replica.",
        ),
    ]


def test_a_secret_that_will_be_deleted_is_refused(aws, secret):
    arn = secret('{"username": "a", "password": "b"}')
    aws.client("secretsmanager").delete_secret(SecretId=arn)
    ((certain, line),) = said(secrets(aws, arn))
    assert certain
    assert line.endswith(f"aws secretsmanager restore-secret --secret-id {arn}")
    aws.client("secretsmanager").restore_secret(SecretId=arn)


def test_a_disabled_key_is_refused(aws):
    kms = aws.client("kms")
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    assert said(preflight.key(kms, REGION, arn)) == []
    kms.disable_key(KeyId=arn)
    ((certain, line),) = said(preflight.key(kms, REGION, arn))
    assert (certain, line.split(". ")[0]) == (True, f"KMS key {arn} is Disabled")
    assert said(preflight.key(kms, "eu-west-1", arn)) == [
        (True, f"KMS key {arn} is in us-east-1, the stack is in eu-west-1. Check --kms-key-arn.")
    ]


def test_what_the_caller_may_not_look_at_is_a_warning():
    """People who deploy through a role of CloudFormation's often may read little themselves."""
    session = botocore.session.get_session()
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    manager = session.create_client("secretsmanager", region_name=REGION, **keys)
    arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:mine-AbCdEf"
    with Stubber(manager) as stub:
        for method in ("describe_secret", "get_secret_value"):
            stub.add_client_error(method, "AccessDeniedException", "User: x is not authorized")
        found = said(preflight.secrets(manager, None, REGION, [arn]))
    assert [certain for certain, _ in found] == [False, False]
    assert "not authorized" in found[0][1]


PASSWORD = "canary/4711"


@pytest.fixture
def registry():
    with RegistryServer(
        users={"ada": PASSWORD},
        rights={"ada": {"lab/align"}},
        images={"lab/align": {"3": index("linux/amd64")}},
    ) as server:
        yield server


def test_right_credentials_are_no_problem(registry):
    given = {registry.host: Credentials("ada", PASSWORD)}
    assert said(preflight.credentials(given)) == []


def test_wrong_credentials_are_refused_and_not_quoted(registry):
    ((certain, line),) = said(
        preflight.credentials({registry.host: Credentials("ada", "canary-no")})
    )
    assert certain
    assert registry.host in line
    assert line.endswith("To skip this check, give --no-check.")
    assert "canary" not in line


def test_a_registry_out_of_reach_is_a_warning():
    """It may be inside the VPC, where this machine is not."""
    ((certain, line),) = said(preflight.credentials({"127.0.0.1:9": Credentials("ada", "x")}))
    assert not certain
    assert "127.0.0.1:9" in line


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gchr.io", ["ghcr.io", "gcr.io"]),
        ("quay.oi", ["quay.io"]),
        ("registry.gilab.com", ["registry.gitlab.com"]),
        ("registry.gitlab.co", ["registry.gitlab.com"]),
        ("dcoker.io", ["docker.io"]),
        ("ghcr.io", []),
        ("gcr.io", []),
        ("harbor.example.com", []),
        ("registry.example.com", []),
    ],
)
def test_a_slip_in_a_public_registrys_name_is_found(typed, meant):
    assert misspelt(typed) == meant


def test_nothing_is_sent_to_a_name_that_looks_like_anothers():
    """Somebody registers such names and waits for passwords."""
    assert said(preflight.credentials({"gchr.io": Credentials("ada", "x")})) == [
        (
            True,
            "gchr.io looks like a misspelling of ghcr.io or gcr.io; nothing was sent to it. "
            "Correct the registry, or confirm it with --no-check.",
        )
    ]


def test_one_deadline_covers_everything():
    """Checks run side by side, and one that hangs is named and waited for no longer."""
    release = threading.Event()

    def hangs():
        release.wait(20)
        return []

    began = time.monotonic()
    found = said(
        [Check("The moon", hangs), Check("Mars", lambda: [Problem("Mars is red.", certain=True)])],
        seconds=0.3,
    )
    release.set()
    assert time.monotonic() - began < 5
    assert found == [
        (True, "Mars is red."),
        (False, "The moon could not be checked: no answer in time. Continuing."),
    ]


def test_a_bug_in_a_check_is_not_a_warning():
    def broken():
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError):
        preflight.run([Check("The moon", broken)])
