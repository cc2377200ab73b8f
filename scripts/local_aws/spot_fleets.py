"""A Spot Fleet for each compute environment of the embedded AWS that has one; ministack has none.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

from typing import Any

from ministack.services import batch, ec2

Data = dict[str, Any]


def install() -> None:
    """Add it to ministack, before the server starts."""
    ec2._ACTION_MAP["DescribeSpotFleetRequests"] = describe_spot_fleet_requests
    ec2._ACTION_MAP["DescribeSpotFleetRequestHistory"] = describe_spot_fleet_request_history


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
