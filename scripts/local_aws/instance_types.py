"""Instance types of some families, with what AWS's have, in every zone; ministack makes up its own.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from ministack.services import ec2

Data = dict[str, Any]

VCPUS = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "16xlarge": 64}
# MiB per vCPU, and whether each type has a GPU.
FAMILIES = {
    "m5": (4096, False),
    "m6i": (4096, False),
    "m7i": (4096, False),
    "c5": (2048, False),
    "c6i": (2048, False),
    "c7i": (2048, False),
    "c7g": (2048, False),
    "r6i": (8192, False),
    "g4dn": (4096, True),
    "g5": (4096, True),
}
_ITEM = """<item><instanceType>{name}</instanceType><processorInfo><supportedArchitectures>
<item>{architecture}</item></supportedArchitectures></processorInfo>
<vCpuInfo><defaultVCpus>{vcpus}</defaultVCpus></vCpuInfo>
<memoryInfo><sizeInMiB>{memory}</sizeInMiB></memoryInfo>{gpus}</item>"""
_GPU = "<gpuInfo><gpus><item><count>1</count></item></gpus></gpuInfo>"


def install() -> None:
    """Put it in the place of ministack's, before the server starts."""
    ec2._ACTION_MAP["DescribeInstanceTypes"] = describe_instance_types
    ec2._ACTION_MAP["DescribeInstanceTypeOfferings"] = describe_instance_type_offerings


def describe_instance_types(parameters: Data) -> Any:
    items = "".join(item for _, item in _asked(parameters))
    return ec2._xml(
        200, "DescribeInstanceTypesResponse", f"<instanceTypeSet>{items}</instanceTypeSet>"
    )


def describe_instance_type_offerings(parameters: Data) -> Any:
    zones = sorted({subnet["AvailabilityZone"] for subnet in ec2._subnets.values()})
    items = "".join(
        f"<item><instanceType>{name}</instanceType><location>{zone}</location>"
        "<locationType>availability-zone</locationType></item>"
        for name, _ in _asked(parameters)
        for zone in zones
    )
    return ec2._xml(
        200,
        "DescribeInstanceTypeOfferingsResponse",
        f"<instanceTypeOfferingSet>{items}</instanceTypeOfferingSet>",
    )


def _asked(parameters: Data) -> Iterator[tuple[str, str]]:
    """Yield (name, XML) of each type that a request is about."""
    patterns = ec2._parse_filters(parameters).get("instance-type", ["*"])
    names = ec2._parse_member_list(parameters, "InstanceType")
    for name, item in _types():
        if name in names if names else any(fnmatch(name, pattern) for pattern in patterns):
            yield name, item


def _types() -> Iterator[tuple[str, str]]:
    """Yield (name, XML) of each type."""
    for family, (memory, gpu) in FAMILIES.items():
        for size, vcpus in VCPUS.items():
            name = f"{family}.{size}"
            if size != "large" or not gpu:
                yield (
                    name,
                    _ITEM.format(
                        name=name,
                        architecture="arm64" if family.endswith("g") else "x86_64",
                        vcpus=vcpus,
                        memory=vcpus * memory,
                        gpus=_GPU if gpu else "",
                    ),
                )
