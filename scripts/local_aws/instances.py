"""Instances in the embedded AWS: they are in the cluster of a compute environment, and Systems
Manager's Run Command reaches them. ministack has no such thing; the machines themselves are the
caller's (`LocalAws.joined`).

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ministack.core.responses import error_response_json, json_response, new_uuid
from ministack.services import batch, ecs, ssm

from local_aws import environments

Data = dict[str, Any]

_clusters: dict[str, str] = {}  # of each instance, in the order in which they joined
_parked: set[str] = set()  # instances that have joined, and whose agents are not connected
_invocations: list[Data] = []


def install() -> None:
    """Add it to ministack, before the server starts."""
    ecs._ACTION_MAP["ListContainerInstances"] = list_container_instances
    ecs._ACTION_MAP["DescribeContainerInstances"] = describe_container_instances
    ssm.handle_request = handle_request


_handle_request = ssm.handle_request


async def handle_request(method: str, path: str, headers: Data, body: bytes, query: Data) -> Any:
    """Answer Run Command's actions, and leave all others of Systems Manager to ministack."""
    action = headers.get("x-amz-target", "").rpartition(".")[2]
    if action not in ACTIONS:
        return await _handle_request(method, path, headers, body, query)
    return ACTIONS[action](json.loads(body))


def list_container_instances(request: Data) -> Any:
    if ecs._resolve_cluster_name(request["cluster"]) not in ecs._clusters:
        return error_response_json("ClusterNotFoundException", "Cluster not found.", 400)
    return json_response(
        {
            "containerInstanceArns": [
                f"{cluster}/{instance}"
                for instance, cluster in _clusters.items()
                if cluster == request["cluster"]
            ]
        }
    )


def describe_container_instances(request: Data) -> Any:
    return json_response(
        {
            "failures": [],
            "containerInstances": [
                {
                    "containerInstanceArn": arn,
                    "ec2InstanceId": arn.rpartition("/")[2],
                    "agentConnected": arn.rpartition("/")[2] not in _parked,
                    "status": "ACTIVE",
                }
                for arn in request["containerInstances"]
            ],
        }
    )


def describe_instance_information(_: Data) -> Any:
    return json_response(
        {
            "InstanceInformationList": [
                {"InstanceId": instance, "PingStatus": "Online", "PlatformType": "Linux"}
                for instance in _clusters
            ]
        }
    )


def send_command(request: Data) -> Any:
    """Queue a script for instances; one that is not known spoils it for all, as on AWS."""
    if request["DocumentName"] != "AWS-RunShellScript":
        return error_response_json("InvalidDocument", request["DocumentName"], 400)
    if not request["InstanceIds"] or not _clusters.keys() >= set(request["InstanceIds"]):
        return error_response_json(
            "InvalidInstanceId", "Instances not in a valid state for account", 400
        )
    command = {"CommandId": new_uuid(), "Comment": request.get("Comment", "")}
    _invocations.extend(
        {
            **command,
            "InstanceId": instance,
            "Status": "Pending",
            "Script": "\n".join(request["Parameters"]["commands"]),
        }
        for instance in request["InstanceIds"]
    )
    return json_response({"Command": {**command, "Status": "Pending"}})


def list_command_invocations(request: Data) -> Any:
    return json_response(
        {
            "CommandInvocations": [
                {name: value for name, value in each.items() if name != "Script"}
                for each in _invocations
                if each["CommandId"] == request["CommandId"]
            ]
        }
    )


# --- What the agents on the instances ask; AWS has other calls for it ---


def local_aws_join(request: Data) -> Any:
    name, instance = request["Environment"].rpartition("/")[2], request["InstanceId"]
    _clusters[instance] = batch._compute_envs[name]["ecsClusterArn"]
    environments.joined.add(name)
    if request.get("Connected", True):
        _parked.discard(instance)
    else:
        _parked.add(instance)
    return json_response({})


def local_aws_leave(request: Data) -> Any:
    del _clusters[request["InstanceId"]]
    return json_response({})


def local_aws_take(request: Data) -> Any:
    """Give an instance's agent its next script, if there is one."""
    for each in _invocations:
        if (each["InstanceId"], each["Status"]) == (request["InstanceId"], "Pending"):
            each["Status"] = "InProgress"
            return json_response(each)
    return json_response({})


def local_aws_report(request: Data) -> Any:
    for each in _invocations:
        if all(each[name] == request[name] for name in ("CommandId", "InstanceId")):
            each["Status"] = request["Status"]
    return json_response({})


ACTIONS: dict[str, Callable[[Data], Any]] = {
    "DescribeInstanceInformation": describe_instance_information,
    "SendCommand": send_command,
    "ListCommandInvocations": list_command_invocations,
    "LocalAwsJoin": local_aws_join,
    "LocalAwsLeave": local_aws_leave,
    "LocalAwsTake": local_aws_take,
    "LocalAwsReport": local_aws_report,
}
