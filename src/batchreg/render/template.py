"""The CloudFormation template: structure comes from the settings, values are parameters."""

from __future__ import annotations

import json
from typing import Any

import yaml
from troposphere import (
    AWSHelperFn,
    Base64,
    Equals,
    GetAtt,
    If,
    Join,
    Not,
    NoValue,
    Output,
    Parameter,
    Ref,
    Split,
    Sub,
    Template,
    batch,
    ec2,
    iam,
    secretsmanager,
)

from batchreg import __version__
from batchreg.render import userdata
from batchreg.render.settings import CREDENTIAL, USERNAME, Settings, suffix

# For a JSON string made of intrinsics only: what must be escaped, backslashes first. Other control
# characters are refused by CREDENTIAL.
JSON_ESCAPES = (("\\", "\\\\"), ('"', '\\"'))

# Every spelling that registry_login.registry_key accepts, and no other.
_NAME = r"[a-z0-9]+((\.|-+)[a-z0-9]+)*"
_BLANKS = r"[ \t\r\n]*"
REGISTRY_URL = (
    rf"(?i){_BLANKS}(?!https://[^/]*:443(/|{_BLANKS}$))(?!http://[^/]*:80(/|{_BLANKS}$))"
    rf"(https?://)?(localhost|[a-z0-9]+(-+[a-z0-9]+)*\.{_NAME}|{_NAME}:[0-9]{{1,5}})"
    rf"(:[0-9]{{1,5}})?(/.*)?{_BLANKS}"
)
DOCKER_HUB = "https://index.docker.io/v1/"

INSTANCE_TYPES = {"ECS_AL2023": "optimal", "ECS_AL2023_NVIDIA": "g4dn"}

# Jobs of these kinds block the head of the queue for good; ten minutes is the least AWS allows.
NEVER_STARTS = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
)


def build(settings: Settings) -> Template:
    """Return the template for `settings`; a pure function of them and of batchreg's version."""
    template = Template(
        "AWS Batch that pulls its images from a private container registry: "
        "a compute environment whose instances have the login, and a job queue."
    )
    template.set_version()
    _parameters(template, settings)
    secrets = _secrets(template, settings)
    profile = _roles(template, settings, secrets)
    launch_template = _launch_template(template, settings)
    _batch(template, settings, profile, launch_template)
    if settings.fargate:
        _fargate(template)
    return template


def to_json(template: Template) -> str:
    """Return the template as JSON text."""
    return json.dumps(_in_reading_order(template), indent=2) + "\n"


def to_yaml(template: Template) -> str:
    """Return the template as YAML text, intrinsics in their short form.

    libyaml writes it: five times as fast as troposphere's own to_yaml.
    """
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(
        _shortened(_in_reading_order(template)),
        Dumper=type(
            "Dumper",
            (dumper,),
            {
                "yaml_representers": {**dumper.yaml_representers, str: _text, Tagged: _tagged},
                "ignore_aliases": lambda self, data: True,
            },
        ),
        sort_keys=False,
        width=100_000,
    )
    return str(text)


class Tagged(tuple[str, Any]):
    """An intrinsic function's short form: its tag and its argument."""


def _in_reading_order(template: Template) -> dict[str, Any]:
    body = template.to_dict()
    body["Resources"] = {
        name: {"Type": resource["Type"], **resource} for name, resource in body["Resources"].items()
    }
    sections = (
        "AWSTemplateFormatVersion",
        "Description",
        "Metadata",
        "Parameters",
        "Conditions",
        "Resources",
        "Outputs",
    )
    return {section: body[section] for section in sections}


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, argument),) = value.items()
        if key == "Fn::GetAtt":
            return Tagged(("!GetAtt", ".".join(argument)))
        # A short form right inside a scalar one, as in !Base64 !Sub, is not valid YAML.
        inner = _shortened(argument)
        if key == "Ref" or (key.startswith("Fn::") and not isinstance(inner, Tagged)):
            return Tagged(("!" + key.removeprefix("Fn::"), inner))
        return {key: inner}
    return {key: _shortened(item) for key, item in value.items()}


def _text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _tagged(dumper: Any, tagged: Tagged) -> Any:
    tag, argument = tagged
    if isinstance(argument, list):
        return dumper.represent_sequence(tag, argument)
    return dumper.represent_scalar(tag, argument, style="|" if "\n" in argument else None)


def _parameters(template: Template, settings: Settings) -> None:
    groups: dict[str, list[str]] = {}
    labels: dict[str, str] = {}

    def add(group: str, name: str, label: str, kind: str, text: str, **rules: Any) -> None:
        template.add_parameter(Parameter(name, Type=kind, Description=text, **rules))
        groups.setdefault(group, []).append(name)
        labels[name] = label

    registry, network, compute = "Registry login", "Network", "Compute"
    for slot in () if settings.secret_arns else settings.slots:
        n = suffix(slot)
        group = f"{registry} {n}".strip()
        add(
            group,
            f"RegistryUrl{n}",
            "Registry",
            "String",
            "Host of the registry, such as ghcr.io or registry.example.com:5050. "
            "The default is Docker Hub.",
            Default=DOCKER_HUB,
            AllowedPattern=REGISTRY_URL,
            ConstraintDescription="A host with a dot or a port, such as ghcr.io or "
            "registry.example.com:5050 (with https://, leave out :443). "
            f"For Docker Hub: {DOCKER_HUB}",
        )
        add(
            group,
            f"Username{n}",
            "User name",
            "String",
            "User name at the registry.",
            NoEcho=True,
            AllowedPattern=USERNAME,
            ConstraintDescription="At least one character, no colon, no control characters, "
            "no {{resolve:.",
        )
        add(
            group,
            f"Password{n}",
            "Password or access token",
            "String",
            "Kept in AWS Secrets Manager and nowhere else. A token that may only read is best.",
            NoEcho=True,
            AllowedPattern=CREDENTIAL,
            ConstraintDescription="At least one character, no line breaks or control characters, "
            "no {{resolve:.",
        )
    add(
        registry,
        "KmsKeyArn",
        "KMS key",
        "String",
        "ARN of the customer managed key of the secret. Empty: AWS's own key for Secrets Manager.",
        Default="",
        AllowedPattern="|arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+",
        ConstraintDescription="The ARN of a KMS key (not of an alias), or nothing.",
    )
    add(
        registry,
        "CredentialRefreshMinutes",
        "Refresh the login every (minutes)",
        "Number",
        "How often the running instances read the secret again, give or take a minute.",
        Default=30,
        MinValue=5,
        MaxValue=1440,
    )
    add(
        network,
        "SubnetIDs",
        "Subnets",
        "List<AWS::EC2::Subnet::Id>",
        "Subnets for the instances, with a route to the registry: the internet, for most.",
    )
    add(
        network,
        "SecurityGroupIDs",
        "Security groups",
        "List<AWS::EC2::SecurityGroup::Id>",
        "Security groups of the instances. They need outgoing HTTPS and nothing incoming.",
    )
    add(
        compute,
        "ProvisioningModel",
        "Provisioning model",
        "String",
        "EC2: On-Demand Instances. SPOT: cheaper, and interrupted at times.",
        Default="EC2",
        AllowedValues=["EC2", "SPOT"],
    )
    add(
        compute,
        "InstanceTypes",
        "Instance types",
        "CommaDelimitedList",
        "Instance types or families, such as m7i or c7g.4xlarge; no mix of x86 and Graviton.",
        Default=INSTANCE_TYPES[settings.image_type],
    )
    add(
        compute,
        "MaxvCpus",
        "Most vCPUs at a time",
        "Number",
        "Upper limit for all instances together. With no jobs, none run.",
        Default=256,
        MinValue=1,
        MaxValue=1000000,
    )
    add(
        compute,
        "RootVolumeGiB",
        "Disk of an instance (GiB)",
        "Number",
        "For the images and for what jobs write into their containers.",
        Default=100,
        MinValue=30,
        MaxValue=16384,
    )
    add(
        compute,
        "ImagePullBehavior",
        "When to pull",
        "String",
        "ECS_IMAGE_PULL_BEHAVIOR of the ECS agent. default: pull each time, use the cached image "
        "where that fails.",
        Default="default",
        AllowedValues=["default", "always", "once", "prefer-cached"],
    )
    template.set_metadata(
        {
            # What a later `deploy` takes as given (settings.of_template).
            "batchreg": {
                "Version": __version__,
                "ImageType": settings.image_type,
                "SecretArns": list(settings.secret_arns),
            },
            "AWS::CloudFormation::Interface": {
                "ParameterGroups": [
                    {"Label": {"default": group}, "Parameters": names}
                    for group, names in groups.items()
                ],
                "ParameterLabels": {name: {"default": label} for name, label in labels.items()},
            },
        }
    )
    template.add_condition("HasKmsKey", Not(Equals(Ref("KmsKeyArn"), "")))
    template.add_condition("IsSpot", Equals(Ref("ProvisioningModel"), "SPOT"))


def _secrets(template: Template, settings: Settings) -> list[Any]:
    """Add the secret, unless the settings bring their own; return the ARNs of all."""
    if settings.secret_arns:
        return list(settings.secret_arns)
    return [Ref(_secret(template, suffix(slot))) for slot in settings.slots]


def _secret(template: Template, n: str) -> secretsmanager.Secret:
    fields = [("username", "Username"), ("password", "Password"), ("registry_url", "RegistryUrl")]
    pieces: list[Any] = []
    for key, parameter in fields:
        pieces += ['{"' if not pieces else '","', key, '":"', _json_escaped(Ref(parameter + n))]
    secret = template.add_resource(
        secretsmanager.Secret(
            f"RegistrySecret{n}",
            Description=Sub("Login of the private container registry of ${AWS::StackName}"),
            KmsKeyId=If("HasKmsKey", Ref("KmsKeyArn"), NoValue),
            SecretString=Join("", [*pieces, '"}']),
            DeletionPolicy="Delete",
            UpdateReplacePolicy="Delete",
        )
    )
    _output(template, f"RegistrySecret{n}Arn", Ref(secret), "Secret with the registry login")
    return secret


def _json_escaped(value: AWSHelperFn) -> AWSHelperFn:
    """Escape `value` for a JSON string: a Join over a Split replaces one text by another."""
    for raw, escaped in JSON_ESCAPES:
        value = Join(escaped, Split(raw, value))
    return value


def _roles(template: Template, settings: Settings, secrets: list[Any]) -> iam.InstanceProfile:
    """Add the roles that may read exactly these secrets; return the instances' profile."""

    def role(name: str, service: str, managed_policy: str) -> iam.Role:
        arn = f"arn:${{AWS::Partition}}:iam::aws:policy/service-role/{managed_policy}"
        via = Sub("secretsmanager.${AWS::Region}.${AWS::URLSuffix}")
        return template.add_resource(
            iam.Role(
                name,
                AssumeRolePolicyDocument=_policy("sts:AssumeRole", Principal={"Service": service}),
                ManagedPolicyArns=[Sub(arn)],
                Policies=[
                    iam.Policy(
                        PolicyName="ReadRegistryLogin",
                        PolicyDocument=_policy("secretsmanager:GetSecretValue", Resource=secrets),
                    ),
                    If(
                        "HasKmsKey",
                        iam.Policy(
                            PolicyName="DecryptRegistryLogin",
                            PolicyDocument=_policy(
                                "kms:Decrypt",
                                Resource=Ref("KmsKeyArn"),
                                Condition={"StringEquals": {"kms:ViaService": via}},
                            ),
                        ),
                        NoValue,
                    ),
                ],
                **_lint_exception(settings),
            )
        )

    instance_role = role("InstanceRole", "ec2.amazonaws.com", "AmazonEC2ContainerServiceforEC2Role")
    profile = template.add_resource(
        iam.InstanceProfile("InstanceProfile", Roles=[Ref(instance_role)])
    )
    execution_role = role(
        "JobExecutionRole", "ecs-tasks.amazonaws.com", "AmazonECSTaskExecutionRolePolicy"
    )
    _output(template, "InstanceRoleArn", GetAtt(instance_role, "Arn"), "Role of the instances")
    _output(template, "InstanceProfileArn", GetAtt(profile, "Arn"), "Profile of the instances")
    _output(
        template,
        "JobExecutionRoleArn",
        GetAtt(execution_role, "Arn"),
        "Execution role for job definitions with repositoryCredentials",
    )
    return profile


def _policy(action: str, **statement: Any) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": action, **statement}],
    }


def _lint_exception(settings: Settings) -> dict[str, Any]:
    """I3042 asks for pseudo parameters in ARNs; the ARN of a secret of one's own is what it is."""
    exception = {"cfn-lint": {"config": {"ignore_checks": ["I3042"]}}}
    return {"Metadata": exception} if settings.secret_arns else {}


def _launch_template(template: Template, settings: Settings) -> ec2.LaunchTemplate:
    secret_ids = settings.secret_arns or [
        f"${{RegistrySecret{suffix(slot)}}}" for slot in settings.slots
    ]
    launch_template = template.add_resource(
        ec2.LaunchTemplate(
            "LaunchTemplate",
            LaunchTemplateData=ec2.LaunchTemplateData(
                BlockDeviceMappings=[
                    ec2.LaunchTemplateBlockDeviceMapping(
                        DeviceName="/dev/xvda",  # the root volume of the ECS-optimized AL2023 images
                        Ebs=ec2.EBSBlockDevice(
                            Encrypted=True, VolumeSize=Ref("RootVolumeGiB"), VolumeType="gp3"
                        ),
                    )
                ],
                # An instance that gets no credentials powers off; it must not stay around, stopped.
                InstanceInitiatedShutdownBehavior="terminate",
                # One hop: containers with a network of their own cannot reach the role's keys.
                MetadataOptions=ec2.MetadataOptions(
                    HttpTokens="required", HttpPutResponseHopLimit=1
                ),
                UserData=Base64(
                    Sub(
                        userdata.build(
                            secret_ids, settings.user_parts, on_failure=settings.on_failure
                        )
                    )
                ),
            ),
            **_lint_exception(settings),
        )
    )
    _output(template, "LaunchTemplateId", Ref(launch_template), "Launch template of the instances")
    return launch_template


def _batch(
    template: Template,
    settings: Settings,
    profile: iam.InstanceProfile,
    launch_template: ec2.LaunchTemplate,
) -> None:
    """Add the compute environment and its queue, such that CloudFormation updates them in place.

    That asks for the service-linked role, no names, no DesiredvCpus, an allocation strategy other
    than BEST_FIT and the launch template's version by number
    (docs.aws.amazon.com/batch/latest/userguide/updating-compute-environments.html).
    """
    environment = template.add_resource(
        batch.ComputeEnvironment(
            "ComputeEnvironment",
            Type="MANAGED",
            State="ENABLED",
            ReplaceComputeEnvironment=False,
            ComputeResources=batch.ComputeResources(
                Type=Ref("ProvisioningModel"),
                AllocationStrategy=If(
                    "IsSpot", "SPOT_PRICE_CAPACITY_OPTIMIZED", "BEST_FIT_PROGRESSIVE"
                ),
                MinvCpus=0,
                MaxvCpus=Ref("MaxvCpus"),
                InstanceTypes=Ref("InstanceTypes"),
                InstanceRole=GetAtt(profile, "Arn"),
                Subnets=Ref("SubnetIDs"),
                SecurityGroupIds=Ref("SecurityGroupIDs"),
                Ec2Configuration=[batch.Ec2ConfigurationObject(ImageType=settings.image_type)],
                LaunchTemplate=batch.LaunchTemplateSpecification(
                    LaunchTemplateId=Ref(launch_template),
                    Version=GetAtt(launch_template, "LatestVersionNumber"),
                ),
                Tags={"Name": Ref("AWS::StackName")},
                UpdateToLatestImageVersion=True,
            ),
        )
    )
    # troposphere takes UpdatePolicy for the resource attribute of that name; Batch's is a property.
    # Jobs that run while an update replaces the instances have six hours; the default is half one.
    environment.properties["UpdatePolicy"] = batch.UpdatePolicy(
        TerminateJobsOnUpdate=False, JobExecutionTimeoutMinutes=360
    )
    queue = _queue(template, "JobQueue", environment)
    _output(template, "ComputeEnvironmentArn", Ref(environment), "Compute environment")
    _output(template, "JobQueueArn", Ref(queue), "Job queue: submit your jobs here")


def _fargate(template: Template) -> None:
    """Add a compute environment and a queue for jobs that carry their own login."""
    environment = template.add_resource(
        batch.ComputeEnvironment(
            "FargateComputeEnvironment",
            Type="MANAGED",
            State="ENABLED",
            ReplaceComputeEnvironment=False,
            ComputeResources=batch.ComputeResources(
                Type="FARGATE",  # no update in place could change it
                MaxvCpus=Ref("MaxvCpus"),
                Subnets=Ref("SubnetIDs"),
                SecurityGroupIds=Ref("SecurityGroupIDs"),
            ),
        )
    )
    queue = _queue(template, "FargateJobQueue", environment)
    _output(
        template, "FargateComputeEnvironmentArn", Ref(environment), "Compute environment on Fargate"
    )
    _output(
        template,
        "FargateJobQueueArn",
        Ref(queue),
        "Job queue on Fargate: for job definitions with repositoryCredentials",
    )


def _queue(template: Template, name: str, environment: batch.ComputeEnvironment) -> batch.JobQueue:
    return template.add_resource(
        batch.JobQueue(
            name,
            Priority=1,
            State="ENABLED",
            ComputeEnvironmentOrder=[
                batch.ComputeEnvironmentOrder(ComputeEnvironment=Ref(environment), Order=1)
            ],
            JobStateTimeLimitActions=[
                batch.JobStateTimeLimitAction(
                    Action="CANCEL", MaxTimeSeconds=600, Reason=reason, State="RUNNABLE"
                )
                for reason in NEVER_STARTS
            ],
        )
    )


def _output(template: Template, name: str, value: Any, text: str) -> None:
    template.add_output(Output(name, Description=text, Value=value))
