"""Faults produced for real, on the embedded AWS and a real registry, and named by the command."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from account import Account
from broken_stack import CANARY, FAULTS, Lab
from lab.parts import Registry
from local_aws import LocalAws
from real_parts import require
from wire import Wire


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalAws, Registry, str]]:
    """An AWS whose network may be broken, and a registry that may be shut down."""
    require("registry")
    folder = tmp_path_factory.mktemp("registry")
    with LocalAws() as aws, Registry("ci-robot", CANARY, directory=folder) as registry:
        yield aws, registry, registry.push("lab/align", "3")


@pytest.fixture
def lab(parts: tuple[LocalAws, Registry, str], template: str) -> Lab:
    return Lab(*parts, template)


def test_healthy_stack_exits_zero_within_five_seconds(lab: Lab) -> None:
    """And says what it has looked at, and what it could not look at."""
    lab.doctor()  # ministack imports a service when it is first called
    started = time.monotonic()
    result = lab.doctor()
    assert time.monotonic() - started < 5
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Nothing is wrong with what was looked at:\n")
    for what in (
        "Stack",
        "Compute environment",
        "Job queue",
        "Launch template",
        "Secret",
        "Role",
        "Subnet",
        "Security groups",
        "Instances",
        f"Image {lab.image}",
    ):
        assert f"\n   {what}" in result.stdout
    assert "Not looked at:\n   servicequotas:GetServiceQuota  vCPU quota: " in result.stdout


@pytest.mark.parametrize("cause", FAULTS)
def test_fault_is_named_first(lab: Lab, cause: str) -> None:
    """The command is told nothing but the stack and, but for failed pulls, the image."""
    fault = FAULTS[cause](lab)
    image = cause != "disk-full"
    if hasattr(fault, "__enter__"):
        with fault:
            found = lab.causes(image=image)
    else:
        found = lab.causes(image=image)
    assert found[:1] == [cause], found


def test_network_is_whole_again(lab: Lab) -> None:
    """The faults before were undone, so that they were what was found."""
    assert lab.causes() == []


def test_missing_tag_is_named(lab: Lab) -> None:
    """The registry itself is asked."""
    assert lab.causes("--image", lab.image.removesuffix("3") + "4", image=False) == ["no-tag"]


def test_image_of_another_registry_is_named(lab: Lab, tmp_path: Path) -> None:
    """The stack's login is not for it, and it gives nothing away without one."""
    with Registry("somebody", "else", directory=tmp_path / "other", host="127.0.0.2") as other:
        image = other.push("lab/align", "3")
        assert lab.causes("--image", image, image=False) == ["no-credentials-for-registry"]


def test_stack_that_never_came_up_is_named_with_its_first_failure(lab: Lab, template: str) -> None:
    """CloudFormation's own summary names no cause."""
    lab.account = Account(lab.aws, f"{lab.account.name}-failed")
    with pytest.raises(Exception, match="terminal failure state"):
        lab.account.make(template, SubnetIDs="subnet-nowhere")
    result = lab.doctor("--json", image=False)
    failure, subnet = json.loads(result.stdout)["findings"]
    assert (failure["cause"], subnet["cause"]) == ("stack-failed", "subnet-missing")
    assert "The subnet ID 'subnet-nowhere' does not exist" in failure["evidence"][0]
    assert failure["fix"] == []
    assert failure["steps"] == [
        "Fix what it reports, then deploy again: "
        f"batchreg deploy --stack-name {lab.account.name} --region us-east-1"
    ]


def test_missing_stack_is_named(lab: Lab) -> None:
    """With a name that is wrong there is nothing else to look at."""
    lab.account.name = "nowhere"
    assert lab.causes(image=False) == ["stack-missing"]


def test_job_of_its_own_is_looked_at(lab: Lab) -> None:
    """--job names one, whose image is asked for; that comes by now, and the job failed still."""
    job = lab.job(
        "FAILED",
        "CannotPullImageManifestError: toomanyrequests: You have reached your pull rate limit.",
    )
    assert lab.causes("--job", job, image=False) == ["rate-limited"]


def test_job_that_is_not_there_is_named(lab: Lab) -> None:
    """AWS Batch answers with an empty list, which is no error."""
    assert lab.causes("--job", "0-0", image=False) == ["job-missing"]


def test_two_faults_at_once_are_both_named_for_people(lab: Lab) -> None:
    """In words: the cause, its evidence, and the command that fixes it."""
    FAULTS["environment-disabled"](lab)
    FAULTS["secret-not-json"](lab)
    result = lab.doctor(image=False)
    assert result.returncode == 1
    environment = lab.name("ComputeEnvironmentArn")
    assert result.stdout.startswith(
        "1. The compute environment is disabled (environment-disabled)\n"
        f"   {environment} is DISABLED.\n"
        "   Fix: aws batch update-compute-environment --state ENABLED --compute-environment "
        f"{environment} --region us-east-1\n\n"
        "2. The secret is not JSON (secret-not-json)\n"
    )


def test_saved_facts_give_the_same_findings_to_a_colleague(lab: Lab, tmp_path: Path) -> None:
    """Who has neither AWS nor the registry reads the file."""
    FAULTS["secret-incomplete"](lab)
    path = tmp_path / "facts.json"
    before = lab.doctor("--save", str(path))
    lab.aws = type("Nowhere", (), {"environ": {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}})()
    after = lab.doctor("--from", str(path), image=False)
    assert (after.returncode, after.stdout) == (before.returncode, before.stdout)
    assert "secret-incomplete" in after.stdout


def test_no_part_of_a_secret_is_shown_or_saved(lab: Lab, tmp_path: Path) -> None:
    """Not of the login, nor of the job's command and variables, nor out of AWS's own words."""
    job = lab.job("FAILED", f"CannotPullImageManifestError: unauthorized: {CANARY} is wrong")
    path = tmp_path / "facts.json"
    outputs = [lab.doctor("--job", job, "--save", str(path)).stdout, path.read_text()]
    FAULTS["secret-incomplete"](lab)  # a secret of another shape, with the canary as a key
    outputs += [lab.doctor("--json").stdout, lab.doctor("--save", "-").stdout]
    pair = base64.b64encode(f"{lab.registry.username}:{CANARY}".encode()).decode()
    for text in outputs:
        assert text
        assert CANARY not in text
        assert pair not in text
        assert lab.registry.username not in text


def test_hanging_service_costs_its_facts_and_no_more(lab: Lab) -> None:
    """EC2 accepts and never answers; the rest is there, and the cause is named all the same."""
    FAULTS["queue-disabled"](lab)
    ended = Event()

    def hang(operation: str, _: int) -> None:
        if operation in (
            "DescribeSubnets",
            "DescribeSecurityGroups",
            "DescribeInstances",
            "DescribeLaunchTemplateVersions",
        ):
            ended.wait(40)

    with Wire(lab.aws.endpoint, before=hang) as wire:
        started = time.monotonic()
        result = lab.doctor("--json", endpoint=wire.endpoint)
        taken = time.monotonic() - started
        ended.set()
    assert taken < 10
    answer = json.loads(result.stdout)
    assert [finding["cause"] for finding in answer["findings"]] == ["queue-disabled"]
    gaps = {gap["permission"]: gap["reason"] for gap in answer["not_looked_at"]}
    assert {
        name: gaps.get(f"ec2:{name}")
        for name in ("DescribeSubnets", "DescribeInstances", "DescribeLaunchTemplateVersions")
    } == dict.fromkeys(
        ("DescribeSubnets", "DescribeInstances", "DescribeLaunchTemplateVersions"),
        "no answer within 9 s",
    )
    assert any(row["what"].startswith("Secret") for row in answer["looked_at"])


def test_nothing_is_changed(lab: Lab) -> None:
    """Every call that goes out is one that reads."""
    job = lab.job("RUNNABLE")
    with Wire(lab.aws.endpoint) as wire:
        lab.doctor("--job", job, endpoint=wire.endpoint)
    operations = {sent.operation for sent in wire.sent}
    assert len(operations) > 15
    assert not [
        operation
        for operation in operations
        if not re.match("(/v1/)?(describe|get|list|simulate)", operation, re.IGNORECASE)
    ]


def test_registry_that_is_down_is_named(lab: Lab) -> None:
    """The last test: the registry stays down."""
    lab.registry.__exit__()
    assert lab.causes() == ["registry-unreachable"]
