"""Jobs for which no instance type of the environment is large enough: they would wait for ever."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lab.forwarder import Call, Forwarder, Reply
from stubs import NOW, Stubs
from submitting import IMAGE, run

from batchreg.cli import jobs as job_commands
from batchreg.errors import BatchregError
from batchreg.jobs import capacity
from batchreg.jobs.definitions import Spec
from batchreg.registry.images import parse
from batchreg.stack import states

M7I = [("m7i.large", 2, 8192, 0), ("m7i.4xlarge", 16, 65536, 0)]
G5 = [("g5.xlarge", 4, 16384, 1), ("g5.12xlarge", 48, 196608, 4)]


def environment(*types: str, name: str = "night") -> dict[str, object]:
    return {"computeEnvironmentName": name, "computeResources": {"instanceTypes": [*types]}}


def shortage(environments, sizes, **needs) -> str:
    """Return what is missing; EC2 has these sizes, and is asked where there are any."""
    stubs = Stubs("ec2")
    if sizes:
        raw = [
            {
                "InstanceType": name,
                "VCpuInfo": {"DefaultVCpus": vcpus},
                "MemoryInfo": {"SizeInMiB": memory},
                **({"GpuInfo": {"Gpus": [{"Count": gpus}]}} if gpus else {}),
            }
            for name, vcpus, memory, gpus in sizes
        ]
        stubs.ec2.add_response("describe_instance_types", {"InstanceTypes": raw})
    spec = Spec(image=parse(IMAGE), **needs)
    found = capacity.shortage(stubs.clients["ec2"], environments, spec)
    stubs.ec2.assert_no_pending_responses()
    assert not found or found.without_gpu == ("needs a GPU" in found.fact)
    return found.fact if found else ""


@pytest.mark.parametrize(
    ("types", "sizes", "needs", "fact"),
    [
        (
            ["m7i"],
            M7I,
            {"gpus": 1},
            "The job needs a GPU, and no instance type of night (m7i) has one.",
        ),
        (
            ["optimal"],
            [],
            {"gpus": 1},
            "The job needs a GPU, and no instance type of night (optimal) has one.",
        ),
        (
            ["m7i"],
            M7I,
            {"vcpus": 17},
            "The job needs 17 vCPUs, and no instance type of night (m7i) has more than 16.",
        ),
        (
            ["m7i"],
            M7I,
            {"memory": 65505},
            "The job needs 65505 MiB, and no instance type of night (m7i) has more than 65504.",
        ),
        (
            ["g5"],
            G5,
            {"gpus": 8},
            "The job needs 8 GPUs, and no instance type of night (g5) has more than 4.",
        ),
        (
            ["m7i", "g5.xlarge"],
            [*M7I, G5[0]],
            {"gpus": 1, "vcpus": 16},
            "The job needs 16 vCPUs, 2048 MiB and 1 GPU, and no instance type of night "
            "(m7i, g5.xlarge) has all of it.",
        ),
    ],
)
def test_what_no_instance_type_has_is_named(types, sizes, needs, fact):
    """With the most that there is."""
    assert shortage([environment(*types)], sizes, **needs) == fact


@pytest.mark.parametrize(
    ("types", "sizes", "needs"),
    [
        (["m7i"], [], {}),  # the least that submit asks for is not worth a call
        (["m7i"], M7I, {"vcpus": 16, "memory": 65504}),
        (["g5"], G5, {"gpus": 4}),
        (["optimal"], [], {"vcpus": 500}),
        (["m7i", "x9"], M7I, {"vcpus": 500}),  # EC2 does not know x9 here
    ],
)
def test_what_fits_or_cannot_be_known_is_left_alone(types, sizes, needs):
    """AWS Batch chooses the families of `optimal`, and may choose others tomorrow."""
    assert shortage([environment(*types)], sizes, **needs) == ""


def test_one_environment_of_the_queue_is_enough():
    """AWS Batch tries them in order."""
    both = [environment("m7i"), environment("g5", name="gpu")]
    assert shortage(both, [*M7I, *G5], gpus=1) == ""
    fact = shortage(both, [*M7I, *G5], gpus=5)
    assert fact.startswith("The job needs 5 GPUs, and no instance type of night and gpu (m7i, g5)")
    assert shortage([*both, {"computeEnvironmentName": "own"}], [*M7I, *G5], gpus=5) == ""


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (
            ["--stack-name", "lab", "--gpus", "1"],
            "Use a stack with GPU instances, such as g4dn. To create one: batchreg deploy "
            "--stack-name NAME --image-type ECS_AL2023_NVIDIA --instance-type TYPE",
        ),
        (
            ["--stack-name", "plain", "--vcpus", "65"],
            "Use less --vcpus or --memory, or larger instance types: batchreg deploy "
            "--stack-name plain --instance-type TYPE",
        ),
    ],
)
def test_job_that_fits_nowhere_is_refused_with_the_next_step(aws, arguments, step):
    """It is reported before a job is submitted, which would wait in RUNNABLE."""
    done = run(aws, "submit", *arguments, IMAGE)
    assert (done.status, done.out) == (1, "")
    assert done.line.startswith("batchreg: The job needs ")
    assert done.line.endswith(f" {step}")


@pytest.mark.parametrize("gpus", [0, 1])
def test_environment_of_somebody_else_is_not_for_deploy(gpus):
    """A companion stack has no instance types of its own; and where there are GPUs, they are not
    what is missing."""
    stubs = Stubs("ec2")
    raw = {"InstanceType": "m7i.large", "VCpuInfo": {"DefaultVCpus": 2}}
    raw["MemoryInfo"] = {"SizeInMiB": 8192}
    raw["GpuInfo"] = {"Gpus": [{"Count": gpus}]}
    stubs.ec2.add_response("describe_instance_types", {"InstanceTypes": [raw]})
    found = {"StackName": "batchreg-night", "StackId": "x", "StackStatus": "CREATE_COMPLETE"}
    spec = Spec(image=parse(IMAGE), vcpus=3, gpus=gpus)
    with pytest.raises(BatchregError, match="or give the compute environment larger instance"):
        job_commands._check_capacity(
            SimpleNamespace(client=stubs.clients.__getitem__),
            [environment("m7i")],
            spec,
            states.read({**found, "CreationTime": NOW}),
        )


class Denying(Forwarder):
    """An AWS that does not let anybody look at instance types."""

    def after(self, call: Call, reply: Reply) -> Reply:
        if call.operation != "DescribeInstanceTypes":
            return reply
        error = "<Error><Code>UnauthorizedOperation</Code><Message>No.</Message></Error>"
        return Reply(403, f"<Response><Errors>{error}</Errors></Response>".encode())


def test_job_is_submitted_where_nobody_can_tell(aws):
    """Without the permission, which few roles have."""
    with Denying(aws.endpoint) as front:
        needs = ("--stack-name", "plain", "--vcpus", "65")
        done = run(aws, "submit", "--detach", *needs, IMAGE, AWS_ENDPOINT_URL=front.url)
    assert "DescribeInstanceTypes" in [call.operation for call in front.calls]
    assert done.status == 0
    assert done.line.startswith("To follow it: ")
