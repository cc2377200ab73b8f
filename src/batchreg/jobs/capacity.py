"""Whether an instance type of a queue's compute environments is large enough for a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from batchreg.jobs.definitions import Spec

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client

# AWS Batch chooses the families itself: which of them, and how large, can change any day. None of
# these families has GPUs.
# Source: docs.aws.amazon.com/batch/latest/APIReference/API_ComputeResource.html, instanceTypes
BUNDLES = ("optimal", "default_x86_64", "default_arm64")

RESERVED_MIB = 32  # by AWS Batch's images, for the ECS agent


class Shortage(NamedTuple):
    """What no instance type has, as a sentence. `without_gpu`: the job needs one, and none has any."""

    fact: str
    without_gpu: bool


@dataclass(frozen=True)
class Size:
    """What an instance type has for jobs. `memory` is in MiB; the kernel takes some of it."""

    name: str
    vcpus: int
    memory: int
    gpus: int

    def fits(self, spec: Spec) -> bool:
        return spec.vcpus <= self.vcpus and spec.memory <= self.memory and spec.gpus <= self.gpus


def shortage(
    ec2: EC2Client, environments: Sequence[Mapping[str, Any]], spec: Spec
) -> Shortage | None:
    """Return what no instance type of the environments has for the job, or None.

    `environments`: as AWS Batch describes them. None as well if nobody can tell: where AWS Batch
    chooses the families, unless the job needs a GPU, or where EC2 knows none of the types.
    """
    if spec.vcpus <= 1 and spec.memory <= Spec.memory and not spec.gpus:
        return None  # what `submit` asks for by default is not worth a call
    each = [one.get("computeResources", {}).get("instanceTypes") for one in environments]
    names = [name for some in each for name in some or ()]
    listed = [name for name in names if name not in BUNDLES]
    if len(listed) < len(names) and not spec.gpus:
        return None
    sizes = _sizes(ec2, listed) if listed else []
    known = {size.name for size in sizes} | {size.name.partition(".")[0] for size in sizes}
    if not all(each) or {*listed} - known or any(size.fits(spec) for size in sizes):
        return None
    where = f"of {_joined(one['computeEnvironmentName'] for one in environments)}"
    without_gpu = bool(spec.gpus) and not any(size.gpus for size in sizes)
    return Shortage(_sentence(spec, sizes, where, names), without_gpu)


def _sizes(ec2: EC2Client, names: Sequence[str]) -> list[Size]:
    """Return the instance types of these names, and all those of these families."""
    wanted = [name if "." in name else f"{name}.*" for name in dict.fromkeys(names)]
    pages = ec2.get_paginator("describe_instance_types").paginate(
        Filters=[{"Name": "instance-type", "Values": wanted}]
    )
    return [
        Size(
            name=raw["InstanceType"],
            vcpus=raw["VCpuInfo"]["DefaultVCpus"],
            memory=raw["MemoryInfo"]["SizeInMiB"] - RESERVED_MIB,
            gpus=sum(gpu.get("Count", 0) for gpu in raw.get("GpuInfo", {}).get("Gpus", [])),
        )
        for page in pages
        for raw in page["InstanceTypes"]
    ]


def _sentence(spec: Spec, sizes: Sequence[Size], where: str, names: Sequence[str]) -> str:
    types = f"no instance type {where} ({', '.join(dict.fromkeys(names))}) has"
    if spec.gpus and not any(size.gpus for size in sizes):
        return f"The job needs a GPU, and {types} one."
    needs = {
        _counted(int(spec.vcpus), "vCPU"): (spec.vcpus, max(size.vcpus for size in sizes)),
        f"{spec.memory} MiB": (spec.memory, max(size.memory for size in sizes)),
        _counted(spec.gpus, "GPU"): (spec.gpus, max(size.gpus for size in sizes)),
    }
    for need, (wanted, most) in needs.items():
        if wanted > most:
            return f"The job needs {need}, and {types} more than {most}."
    together = [need for need in needs if not need.startswith("0 ")]
    return f"The job needs {_joined(together)}, and {types} all of it."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _joined(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
