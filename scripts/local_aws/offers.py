"""The instance types that the embedded AWS offers: every family in eight sizes, in every zone; and a
Spot Fleet for each compute environment that has one.

ministack knows a dozen types, and not what a filter is; and no Spot Fleet. Only the embedded AWS's
own process imports this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ministack.services import batch, ec2

Data = dict[str, Any]

VCPUS = {
    "large": 2,
    "xlarge": 4,
    "2xlarge": 8,
    "4xlarge": 16,
    "8xlarge": 32,
    "16xlarge": 64,
    "24xlarge": 96,
    "224xlarge": 896,
}
GIB_PER_VCPU = {"c": 2, "m": 4, "r": 8, "x": 16}
GRAVITON = re.compile(r"[a-z]+\d+g[a-z-]*\.")


def install() -> None:
    """Add it to ministack, before the server starts."""
    ec2._ACTION_MAP["DescribeInstanceTypes"] = describe_instance_types
    ec2._ACTION_MAP["DescribeInstanceTypeOfferings"] = describe_instance_type_offerings
    ec2._ACTION_MAP["DescribeSpotFleetRequests"] = describe_spot_fleet_requests
    ec2._ACTION_MAP["DescribeSpotFleetRequestHistory"] = describe_spot_fleet_request_history


def describe_instance_types(params: Data) -> Any:
    items = "".join(map(_described, _asked(params)))
    return ec2._xml(
        200, "DescribeInstanceTypesResponse", f"<instanceTypeSet>{items}</instanceTypeSet>"
    )


def describe_instance_type_offerings(params: Data) -> Any:
    zones = sorted({subnet["AvailabilityZone"] for subnet in ec2._subnets.values()})
    items = "".join(
        f"<item><instanceType>{name}</instanceType><location>{zone}</location>"
        "<locationType>availability-zone</locationType></item>"
        for name in _asked(params)
        for zone in zones
    )
    return ec2._xml(
        200,
        "DescribeInstanceTypeOfferingsResponse",
        f"<instanceTypeOfferingSet>{items}</instanceTypeOfferingSet>",
    )


def describe_spot_fleet_requests(_: Data) -> Any:
    items = "".join(
        f"<item><spotFleetRequestId>sfr-{name}</spotFleetRequestId>"
        "<spotFleetRequestState>active</spotFleetRequestState><spotFleetRequestConfig>"
        f"<iamFleetRole>{resources['spotIamFleetRole']}</iamFleetRole>"
        "<targetCapacity>1</targetCapacity><launchSpecifications><item>"
        f"<subnetId>{', '.join(resources['subnets'])}</subnetId>"
        "</item></launchSpecifications></spotFleetRequestConfig></item>"
        for name, environment in batch._compute_envs.items()
        if "spotIamFleetRole" in (resources := environment.get("computeResources") or {})
    )
    return ec2._xml(
        200,
        "DescribeSpotFleetRequestsResponse",
        f"<spotFleetRequestConfigSet>{items}</spotFleetRequestConfigSet>",
    )


def describe_spot_fleet_request_history(_: Data) -> Any:
    """Tell of no event: there is always capacity."""
    return ec2._xml(200, "DescribeSpotFleetRequestHistoryResponse", "<historyRecordSet/>")


def _asked(params: Data) -> Iterator[str]:
    """Yield the names of the instance types that a request's filter is about."""
    for pattern in ec2._parse_filters(params).get("instance-type", []):
        family, _, size = pattern.partition(".")
        if size == "*":
            yield from (f"{family}.{each}" for each in VCPUS)
        elif size in VCPUS:
            yield pattern


def _described(name: str) -> str:
    vcpus = VCPUS[name.partition(".")[2]]
    memory = vcpus * GIB_PER_VCPU.get(name[0], 4) * 1024
    architecture = "arm64" if GRAVITON.match(name) else "x86_64"
    gpus = ""
    if name[0] in "gp":
        gpus = f"<gpuInfo><gpus><item><count>{max(1, vcpus // 12)}</count></item></gpus></gpuInfo>"
    return (
        f"<item><instanceType>{name}</instanceType>"
        f"<processorInfo><supportedArchitectures><item>{architecture}</item>"
        "</supportedArchitectures></processorInfo>"
        f"<vCpuInfo><defaultVCpus>{vcpus}</defaultVCpus></vCpuInfo>"
        f"<memoryInfo><sizeInMiB>{memory}</sizeInMiB></memoryInfo>{gpus}</item>"
    )
