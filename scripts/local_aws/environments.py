"""AWS Batch's compute environments: what they refuse, and what an update does to them.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import email
from collections.abc import Iterator
from email.errors import CloseBoundaryNotFoundDefect
from typing import Any

from ministack.core.responses import new_uuid
from ministack.services import batch, ec2, ecs, iam

from local_aws.requests import ask, find, name_in

Data = dict[str, Any]

LINKED_ROLE = (
    "arn:aws:iam::123456789012:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch"
)
# Of what an update may name, all but these shape the instances: an infrastructure update.
SCALING = {"minvCpus", "maxvCpus", "desiredvCpus", "scalingPolicy"}
IN_PLACE = {
    "BEST_FIT_PROGRESSIVE",
    "BEST_FIT_PROGRESSIVE_ORDERED",
    "SPOT_CAPACITY_OPTIMIZED",
    "SPOT_PRICE_CAPACITY_OPTIMIZED",
    "SPOT_CAPACITY_OPTIMIZED_PRIORITIZED",
}
UPDATE_POLICY = {"terminateJobsOnUpdate": False, "jobExecutionTimeoutMinutes": 30}

INVALIDATED = (
    "CLIENT_ERROR - Your compute environment has been INVALIDATED and scaled down because none of "
    "the instances joined the underlying ECS Cluster. Common issues preventing instances joining "
    "are the following: VPC/Subnet configuration preventing communication to ECS, incorrect "
    "Instance Profile policy preventing authorization to ECS, or customized AMI or LaunchTemplate "
    "configurations affecting ECS agent."
)

UPDATE_SECONDS = 0.0  # that an environment is UPDATING; the server sets it

# By environment: the launch template versions that it has read, and how often it was reshaped.
_templates: dict[str, list[Data]] = {}
revisions: dict[str, int] = {}
joined: set[str] = set()  # environments of which an instance has joined the cluster
_lost: dict[str, int] = {}  # how many have ended before that


def create_compute_environment(request: Data) -> Data:
    """Make an environment; what cannot work makes it INVALID, as on AWS."""
    _check_keys(request.get("computeResources") or {})
    answer = ask(batch._create_compute_environment, request)
    environment = batch._compute_envs[answer["computeEnvironmentName"]]
    environment["serviceRole"] = environment["serviceRole"] or LINKED_ROLE
    environment.update(uuid=str(new_uuid()), containerOrchestrationType="ECS")
    ask(ecs._create_cluster, {"clusterName": environment["computeEnvironmentName"]})
    if environment["type"] == "MANAGED":
        environment["updatePolicy"] = dict(UPDATE_POLICY)
    _read_templates(environment)
    return answer


def update_compute_environment(request: Data) -> Data:
    environment = find(batch._compute_envs, request["computeEnvironment"])
    if environment["status"] == "UPDATING":
        raise ValueError("Cannot update, resource is being modified.")
    changes = dict(request.get("computeResources") or {})
    role = request.get("serviceRole", environment["serviceRole"])
    if (role == LINKED_ROLE) != (environment["serviceRole"] == LINKED_ROLE):
        raise ValueError(
            "The service role cannot be changed from or to a Batch Service Linked Role."
        )
    reshaped = sorted(changes.keys() - SCALING)
    before = environment.get("computeResources") or {}
    if reshaped and not before["type"].startswith("FARGATE"):
        if role != LINKED_ROLE or before.get("allocationStrategy") not in IN_PLACE:
            raise ValueError(
                f"Error executing request, Exception : {', '.join(reshaped)} can be updated only "
                "for Non-fargate Compute Environment having a Batch Service Linked Role."
            )
        if changes.get("allocationStrategy", "BEST_FIT_PROGRESSIVE") not in IN_PLACE:
            raise ValueError("The allocation strategy cannot be changed to BEST_FIT.")
    policy = {**UPDATE_POLICY, **request.get("updatePolicy", {})}
    if not 1 <= policy["jobExecutionTimeoutMinutes"] <= 7200:
        raise ValueError("jobExecutionTimeoutMinutes must be between 1 and 7200")
    resources = _merged(before, changes)
    if resources:
        _check_keys(resources)
    for key in ("state", "serviceRole", "unmanagedvCpus", "context"):
        if key in request:
            environment[key] = request[key]
    if "updatePolicy" in request:
        environment["updatePolicy"] = policy
    environment["computeResources"] = resources
    if reshaped:
        if not _is_invalidated(environment):
            environment.update(status="UPDATING", statusReason="ComputeEnvironment is updating")
        if UPDATE_SECONDS:
            loop = asyncio.get_running_loop()
            loop.call_later(UPDATE_SECONDS, _end_update, environment)
        else:
            _end_update(environment)
    return {key: environment[key] for key in ("computeEnvironmentName", "computeEnvironmentArn")}


def _merged(resources: Data, changes: Data) -> Data:
    """Replace each value whole: a launch template without overrides unsets them."""
    merged = {**resources, **copy.deepcopy(changes)}
    merged.pop("updateToLatestImageVersion", None)
    template = merged.get("launchTemplate")
    if template and not any(
        template.get(key) for key in ("launchTemplateId", "launchTemplateName", "overrides")
    ):
        del merged["launchTemplate"]  # an empty ID takes it away
    return merged


def _is_invalidated(environment: Data) -> bool:
    """Tell whether no instance has joined, a state out of which no update leads."""
    return "INVALIDATED" in environment["statusReason"]


def reshape(environment: Data, resources: Data) -> None:
    """Give an environment other resources, whatever an update may change, and read them."""
    environment["computeResources"] = resources
    _end_update(environment)


def _end_update(environment: Data) -> None:
    name = environment["computeEnvironmentName"]
    revisions[name] = revisions.get(name, 1) + 1
    if not _is_invalidated(environment):
        environment.update(status="VALID", statusReason="ComputeEnvironment is ready")
    _read_templates(environment)


def local_aws_lost(request: Data) -> Data:
    """Take the end of an instance that has not joined; AWS has no such call.

    A second one in a row invalidates an environment that no instance has ever joined.
    """
    environment = find(batch._compute_envs, request["environment"])
    name = environment["computeEnvironmentName"]
    if "limited to" in request["reason"]:
        environment.update(status="INVALID", statusReason=f"CLIENT_ERROR - {request['reason']}")
    elif name not in joined:
        _lost[name] = _lost.get(name, 0) + 1
        if _lost[name] > 1:
            environment.update(status="INVALID", statusReason=INVALIDATED)
    return {}


def describe_compute_environments(request: Data) -> Data:
    names = [name_in(reference) for reference in request.get("computeEnvironments") or []]
    return ask(batch._describe_compute_environments, {"computeEnvironments": names})


def delete_compute_environment(request: Data) -> Data:
    environment = find(batch._compute_envs, request["computeEnvironment"])
    for queue in batch._job_queues.values():
        for entry in queue["computeEnvironmentOrder"]:
            if entry["computeEnvironment"] == environment["computeEnvironmentArn"]:
                raise ValueError("Cannot delete, found existing JobQueue relationship")
    if environment["status"] == "UPDATING":
        raise ValueError("Cannot delete, resource is being modified.")
    if environment["state"] != "DISABLED":
        raise ValueError("Cannot delete, compute environment must be DISABLED")
    name = environment["computeEnvironmentName"]
    del batch._compute_envs[name]
    ecs._clusters.pop(name, None)
    _templates.pop(name, None)
    revisions.pop(name, None)
    joined.discard(name)
    _lost.pop(name, None)
    return {}


# --- What an environment needs ---


def _check_keys(resources: Data) -> None:
    """Refuse a request that AWS Batch refuses at once."""
    if not resources:  # an UNMANAGED one
        return
    ec2_only = {"allocationStrategy", "instanceRole", "instanceTypes", "launchTemplate", "minvCpus"}
    required = {"subnets", "instanceRole", "instanceTypes"}
    if resources["type"].startswith("FARGATE"):
        required = {"subnets", "securityGroupIds"}
        for key in sorted(ec2_only & resources.keys()):
            raise ValueError(f"{key} must not be specified for {resources['type']}")
    for key in sorted(required - resources.keys()):
        raise ValueError(f"{key} must be specified")
    overrides = (resources.get("launchTemplate") or {}).get("overrides", [])
    if len(overrides) > 10:
        raise ValueError("A launch template may have at most 10 overrides")
    for override in overrides:
        if not override.get("targetInstanceTypes"):
            raise ValueError("targetInstanceTypes must be specified for a launch template override")


def _read_templates(environment: Data) -> None:
    """Read $Latest and $Default, as AWS Batch does when it makes or reshapes an environment."""
    try:
        _templates[environment["computeEnvironmentName"]] = list(
            _check(environment.get("computeResources") or {})
        )
    except ValueError as error:
        environment.update(status="INVALID", statusReason=f"CLIENT_ERROR - {error}")


def check_compute_resources(resources: Data) -> None:
    """Refuse what makes a real compute environment INVALID, as CloudFormation reports it."""
    _check_keys(resources)
    try:
        list(_check(resources))
    except ValueError as error:
        raise ValueError(
            f"Operation failed, ComputeEnvironment went INVALID with error: CLIENT_ERROR - {error}"
        ) from None


def _check(resources: Data) -> Iterator[Data]:
    """Yield the launch templates in use; ValueError on what the account has not."""
    if not resources:
        return
    ec2._ensure_defaults_initialized()
    for subnet in resources["subnets"]:
        if subnet not in ec2._subnets:
            raise ValueError(f"The subnet ID '{subnet}' does not exist")
    for group in resources.get("securityGroupIds", []):
        if group not in ec2._security_groups:
            raise ValueError(f"The security group '{group}' does not exist")
    role = resources.get("instanceRole")
    if role and name_in(role) not in iam._instance_profiles:
        raise ValueError(f"Invalid IamInstanceProfile: {role}")
    wanted = resources.get("launchTemplate") or {}
    for each in [*wanted.get("overrides", []), *([wanted] if _names_one(wanted) else [])]:
        version = _find_version(each)
        data = version["LaunchTemplateData"]
        if "UserData" in data:
            message = email.message_from_bytes(user_data_of(data))
            # One that is never closed has a defect for Python, and AWS Batch and cloud-init take it.
            broken = [
                defect
                for defect in message.defects
                if not isinstance(defect, CloseBoundaryNotFoundDefect)
            ]
            if not message.is_multipart() or broken:
                raise ValueError("Launch Template UserData is not MIME multipart format")
        yield {**version, "targetInstanceTypes": each.get("targetInstanceTypes", [])}


def _names_one(wanted: Data) -> bool:
    return bool(wanted.get("launchTemplateId") or wanted.get("launchTemplateName"))


def _find_version(wanted: Data) -> Data:
    """Find the version that a compute environment asks for: a number, $Latest or $Default."""
    for template in ec2._launch_templates.values():
        if wanted.get("launchTemplateId") == template["LaunchTemplateId"] or (
            wanted.get("launchTemplateName") == template["LaunchTemplateName"]
        ):
            version = wanted.get("version") or "$Default"
            number = template.get(f"{version.removeprefix('$')}VersionNumber", version)
            for candidate in template["Versions"]:
                if str(candidate["VersionNumber"]) == str(number):
                    found: Data = candidate
                    return found
            raise ValueError(f"Could not find launch template version {version}")
    raise ValueError("The specified launch template does not exist")


def template_for(environment: Data, instance_type: str) -> Data | None:
    """Return the version with which an instance starts: an override's, or the environment's."""
    rest = None
    for version in _templates.get(environment["computeEnvironmentName"], []):
        targets = version["targetInstanceTypes"]
        if any(instance_type == one or instance_type.startswith(f"{one}.") for one in targets):
            return version
        if not targets:
            rest = version
    return rest


def user_data_of(data: Data) -> bytes:
    """Decode a launch template's user data as EC2 does, up to its limit."""
    try:
        decoded = base64.b64decode(data.get("UserData", ""), validate=True)
    except binascii.Error:
        raise ValueError("Invalid BASE64 encoding of user data.") from None
    if len(decoded) > 16_384:
        raise ValueError("User data is limited to 16384 bytes")
    return decoded
