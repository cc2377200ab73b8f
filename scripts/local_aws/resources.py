"""The resource types of CloudFormation that ministack lacks or treats otherwise than AWS.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel
from ministack.core.responses import new_uuid
from ministack.services import batch, iam, secretsmanager
from ministack.services.cloudformation import provisioners

from local_aws import cache_rules, creation_templates
from local_aws.batch import create_job_queue, delete_job_queue, update_job_queue
from local_aws.definitions import deregister_job_definition, register_job_definition
from local_aws.ecr_requests import check, shape_of
from local_aws.environments import (
    IN_PLACE,
    LINKED_ROLE,
    check_compute_resources,
    create_compute_environment,
    delete_compute_environment,
    reshape,
    user_data_of,
)
from local_aws.properties import as_text, convert
from local_aws.requests import ask, find, name_in

Data = dict[str, Any]
Made = tuple[str, Data]  # what `create` and `update` of a resource type return: Ref and GetAtt

CREATE_ONLY = {
    "AWS::Batch::ComputeEnvironment": {"ComputeEnvironmentName", "Type", "Tags"},
    "AWS::Batch::JobQueue": {"JobQueueName", "JobQueueType", "Tags"},
    "AWS::Batch::JobDefinition": {"JobDefinitionName"},
    "AWS::EC2::LaunchTemplate": {"LaunchTemplateName", "TagSpecifications"},
    "AWS::ECR::PullThroughCacheRule": {
        "CredentialArn",
        "CustomRoleArn",
        "EcrRepositoryPrefix",
        "UpstreamRegistry",
        "UpstreamRegistryUrl",
        "UpstreamRepositoryPrefix",
    },
    "AWS::ECR::RepositoryCreationTemplate": {"Prefix"},
    "AWS::IAM::InstanceProfile": {"InstanceProfileName", "Path"},
    "AWS::IAM::Role": {"RoleName", "Path"},
    "AWS::IAM::RolePolicy": {"PolicyName", "RoleName"},
    "AWS::SecretsManager::ResourcePolicy": {"SecretId"},
    "AWS::SecretsManager::Secret": {"Name"},
}
# Among a compute environment's resources, all but these shape its instances.
SCALING = {"MinvCpus", "MaxvCpus", "DesiredvCpus"}


def reshapes(old: Data, new: Data) -> bool:
    """Tell whether an update of a compute environment changes more than how far it scales."""

    def infrastructure(properties: Data) -> Data:
        resources = properties.get("ComputeResources", {})
        return {key: resources[key] for key in resources.keys() - SCALING}

    return infrastructure(old) != infrastructure(new)


@functools.cache
def _shape(operation: str) -> Any:
    model = ServiceModel(Loader().load_service_model("batch", "service-2"), "batch")
    return model.operation_model(operation).input_shape


def _request(operation: str, properties: Data, key: str, name: str) -> Data:
    """Turn a Batch resource's properties into the request that makes it."""
    request: Data = convert(_shape(operation), {**properties, key: name}, "#")
    return request


def _unnamed(stack: str, logical_id: str) -> str:
    return f"{stack}-{logical_id}"[:110] + "-" + str(new_uuid())[-12:]


def _environment(properties: Data, name: str) -> Data:
    only_in_cloudformation = ("ReplaceComputeEnvironment", "UpdatePolicy")
    properties = copy.deepcopy(
        {key: value for key, value in properties.items() if key not in only_in_cloudformation}
    )
    properties.get("ComputeResources", {}).pop("UpdateToLatestImageVersion", None)
    if properties.get("Type") in ("managed", "unmanaged"):  # the CDK's spelling, which AWS takes
        properties["Type"] = properties["Type"].upper()
    return _request("CreateComputeEnvironment", properties, "ComputeEnvironmentName", name)


def _create_environment(logical_id: str, properties: Data, stack: str) -> Made:
    name = properties.get("ComputeEnvironmentName") or _unnamed(stack, logical_id)
    request = _environment(properties, name)
    check_compute_resources(request.get("computeResources", {}))
    made = create_compute_environment(request)
    return made["computeEnvironmentArn"], {"ComputeEnvironmentArn": made["computeEnvironmentArn"]}


def _update_environment(arn: str, old: Data, new: Data, stack: str, logical_id: str) -> Made:
    in_place = as_text(new.get("ReplaceComputeEnvironment", True)) == "false"
    if reshapes(old, new) and not in_place:
        return _create_environment(logical_id, new, stack)
    environment, request = find(batch._compute_envs, arn), _environment(new, name_in(arn))
    resources = request.pop("computeResources", {})
    check_compute_resources(resources)
    if reshapes(old, new):
        strategy = environment["computeResources"].get("allocationStrategy")
        if strategy not in IN_PLACE or environment["serviceRole"] != LINKED_ROLE:
            raise ValueError(
                "An update of the infrastructure needs the service-linked role and an "
                "allocation strategy other than BEST_FIT"
            )
        reshape(environment, resources)
    environment.update(request, computeResources=resources)
    return arn, {"ComputeEnvironmentArn": arn}


def _delete_environment(arn: str, properties: Data) -> None:
    if name_in(arn) in batch._compute_envs:
        batch._compute_envs[name_in(arn)]["state"] = "DISABLED"
        delete_compute_environment({"computeEnvironment": arn})


def _create_queue(logical_id: str, properties: Data, stack: str) -> Made:
    name = properties.get("JobQueueName") or _unnamed(stack, logical_id)
    made = create_job_queue(_request("CreateJobQueue", properties, "JobQueueName", name))
    return made["jobQueueArn"], {"JobQueueArn": made["jobQueueArn"]}


def _update_queue(arn: str, old: Data, new: Data, stack: str, logical_id: str) -> Made:
    request = _request("CreateJobQueue", new, "JobQueueName", name_in(arn))
    update_job_queue({**request, "jobQueue": arn})
    return arn, {"JobQueueArn": arn}


def _delete_queue(arn: str, properties: Data) -> None:
    if name_in(arn) in batch._job_queues:
        batch._job_queues[name_in(arn)]["state"] = "DISABLED"
        delete_job_queue({"jobQueue": arn})


def _create_definition(logical_id: str, properties: Data, stack: str) -> Made:
    name = properties.get("JobDefinitionName") or _unnamed(stack, logical_id)
    made = register_job_definition(
        _request("RegisterJobDefinition", properties, "JobDefinitionName", name)
    )
    return made["jobDefinitionArn"], {"JobDefinitionArn": made["jobDefinitionArn"]}


def _update_definition(arn: str, old: Data, new: Data, stack: str, logical_id: str) -> Made:
    name, _, _ = name_in(arn).partition(":")
    return _create_definition(logical_id, {"JobDefinitionName": name, **new}, stack)


def _delete_definition(arn: str, properties: Data) -> None:
    deregister_job_definition({"jobDefinition": arn})


def _create_launch_template(logical_id: str, properties: Data, stack: str) -> Made:
    user_data_of(properties["LaunchTemplateData"])
    made: Made = provisioners._ec2_launch_template_create(logical_id, properties, stack)
    return made


def _update_launch_template(
    template_id: str, old: Data, new: Data, stack: str, logical_id: str
) -> Made:
    user_data_of(new["LaunchTemplateData"])
    made: Made = provisioners._ec2_launch_template_update(template_id, old, new, stack, logical_id)
    return made


# ministack's Ref of a secret is its name.


def _create_secret(logical_id: str, properties: Data, stack: str) -> Made:
    if properties.get("Name") in secretsmanager._secrets:
        raise ValueError("The operation failed because the secret already exists.")
    _, made = provisioners._sm_secret_create(logical_id, properties, stack)
    return made["Arn"], {"Id": made["Arn"]}


def _update_secret(arn: str, old: Data, new: Data, stack: str, logical_id: str) -> Made:
    name, secret = secretsmanager._resolve(arn)
    if secret is None:
        raise ValueError("Secrets Manager can't find the specified secret.")
    provisioners._sm_secret_update(name, old, new, stack, logical_id)
    return arn, {"Id": arn}


def _delete_secret(arn: str, properties: Data) -> None:
    provisioners._sm_secret_delete(secretsmanager._resolve(arn)[0], properties)


# ministack's Ref of an instance profile is its ARN.


def _create_profile(logical_id: str, properties: Data, stack: str) -> Made:
    arn, attributes = provisioners._iam_ip_create(logical_id, properties, stack)
    return name_in(arn), attributes


def _update_profile(name: str, old: Data, new: Data, stack: str, logical_id: str) -> Made:
    arn = iam._instance_profiles[name]["Arn"]
    provisioners._iam_ip_update(arn, old, new, stack, logical_id)
    return name, {"Arn": arn}


def _delete_profile(name: str, properties: Data) -> None:
    iam._instance_profiles.pop(name, None)


def _create_resource_policy(logical_id: str, properties: Data, stack: str) -> Made:
    """Give a secret its policy; Ref is the secret's ARN."""
    arn = properties["SecretId"]
    if arn in secretsmanager._resource_policies:
        raise ValueError("A resource policy already exists on the secret")
    return _put_resource_policy(arn, properties)


def _put_resource_policy(arn: str, properties: Data) -> Made:
    text = json.dumps(properties["ResourcePolicy"])
    ask(secretsmanager._put_resource_policy, {"SecretId": arn, "ResourcePolicy": text})
    return arn, {"Id": arn}


def _update_resource_policy(arn: str, old: Data, new: Data, stack: str, logical_id: str) -> Made:
    return _put_resource_policy(arn, new)


def _delete_resource_policy(arn: str, properties: Data) -> None:
    if secretsmanager._resolve(arn)[1]:
        ask(secretsmanager._delete_resource_policy, {"SecretId": arn})


def _create_role_policy(logical_id: str, properties: Data, stack: str) -> Made:
    """Add an inline policy to a role, unless it has one of that name."""
    role = iam._roles.get(properties["RoleName"])
    if role is None:
        raise ValueError(f"The role with name {properties['RoleName']} cannot be found.")
    if properties["PolicyName"] in role["InlinePolicies"]:
        raise ValueError(
            f"Resource of type 'AWS::IAM::RolePolicy' with identifier "
            f"'{properties['PolicyName']}|{properties['RoleName']}' already exists."
        )
    return _update_role_policy("", {}, properties, stack, logical_id)


def _update_role_policy(
    physical_id: str, old: Data, new: Data, stack: str, logical_id: str
) -> Made:
    document = json.dumps(new["PolicyDocument"])
    iam._roles[new["RoleName"]]["InlinePolicies"][new["PolicyName"]] = document
    return f"{new['PolicyName']}|{new['RoleName']}", {}


def _delete_role_policy(physical_id: str, properties: Data) -> None:
    if role := iam._roles.get(properties["RoleName"]):
        role["InlinePolicies"].pop(properties["PolicyName"], None)


# All of a pull-through cache rule's properties are create-only, so no update comes here.


def _create_cache_rule(logical_id: str, properties: Data, stack: str) -> Made:
    request = _ecr_request("CreatePullThroughCacheRule", properties)
    return cache_rules.create_rule(request)["ecrRepositoryPrefix"], {}


def _update_cache_rule(prefix: str, old: Data, new: Data, stack: str, logical_id: str) -> Made:
    return prefix, {}


def _delete_cache_rule(prefix: str, properties: Data) -> None:
    if prefix in cache_rules.rules:
        cache_rules.delete_rule({"ecrRepositoryPrefix": prefix})


def _create_repository_template(logical_id: str, properties: Data, stack: str) -> Made:
    request = _ecr_request("CreateRepositoryCreationTemplate", properties)
    return creation_templates.create_template(request)["repositoryCreationTemplate"]["prefix"], {}


def _update_repository_template(
    prefix: str, old: Data, new: Data, stack: str, logical_id: str
) -> Made:
    request = _ecr_request("CreateRepositoryCreationTemplate", new)
    creation_templates.replace_template(request)
    return prefix, {}


def _delete_repository_template(prefix: str, properties: Data) -> None:
    if prefix in creation_templates.templates:
        creation_templates.delete_template({"prefix": prefix})


def _ecr_request(operation: str, properties: Data) -> Data:
    request: Data = convert(shape_of(operation), properties, "#")
    check(shape_of(operation), request)
    return request


TYPES: dict[str, tuple[Callable[..., Made], Callable[..., Made], Callable[..., None]]] = {
    "AWS::Batch::ComputeEnvironment": (
        _create_environment,
        _update_environment,
        _delete_environment,
    ),
    "AWS::Batch::JobQueue": (_create_queue, _update_queue, _delete_queue),
    "AWS::Batch::JobDefinition": (_create_definition, _update_definition, _delete_definition),
    "AWS::EC2::LaunchTemplate": (
        _create_launch_template,
        _update_launch_template,
        provisioners._ec2_launch_template_delete,
    ),
    "AWS::ECR::PullThroughCacheRule": (_create_cache_rule, _update_cache_rule, _delete_cache_rule),
    "AWS::ECR::RepositoryCreationTemplate": (
        _create_repository_template,
        _update_repository_template,
        _delete_repository_template,
    ),
    "AWS::IAM::InstanceProfile": (_create_profile, _update_profile, _delete_profile),
    "AWS::IAM::RolePolicy": (_create_role_policy, _update_role_policy, _delete_role_policy),
    "AWS::SecretsManager::ResourcePolicy": (
        _create_resource_policy,
        _update_resource_policy,
        _delete_resource_policy,
    ),
    "AWS::SecretsManager::Secret": (_create_secret, _update_secret, _delete_secret),
}
