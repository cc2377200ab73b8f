"""The CloudFormation template: structure comes from the settings, values are parameters."""

from __future__ import annotations

from typing import Any

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
from batchreg.render import cache, constraints, userdata
from batchreg.render.policies import allow, document
from batchreg.render.settings import Settings, suffix

# For a JSON string made of intrinsics only: what must be escaped, backslashes first. Other control
# characters are refused by constraints.PASSWORD.
JSON_ESCAPES = (("\\", "\\\\"), ('"', '\\"'))

# Jobs with these reasons block the head of the queue forever; AWS allows ten minutes or more.
NEVER_STARTS = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
)


def build(settings: Settings) -> Template:
    """Return the template for `settings`; a pure function of them and of batchreg's version."""
    template = Template(
        "AWS Batch that pulls its images from a private container registry: "
        "a compute environment whose instances have the credentials, and a job queue."
    )
    template.set_version()
    _parameters(template, settings)
    secrets = _secrets(template, settings)
    if settings.cached:
        cache.add(template, settings)
    profile = _roles(template, settings, secrets)
    launch_template = _launch_template(template, settings)
    _batch(template, settings, profile, launch_template)
    if settings.fargate:
        _fargate(template)
    return template


def _parameters(template: Template, settings: Settings) -> None:
    groups: dict[str, list[str]] = {}
    labels: dict[str, str] = {}

    def add(group: str, name: str, label: str, kind: str, text: str, **rules: Any) -> None:
        template.add_parameter(Parameter(name, Type=kind, Description=text, **rules))
        groups.setdefault(group, []).append(name)
        labels[name] = label

    registry, network, compute = "Registry credentials", "Network", "Compute"
    permissions, updates = "Permissions", "Updates"
    caching = "Pull-through cache"
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
            **_registry_url(dict(settings.cached).get(slot)),
        )
        add(
            group,
            f"Username{n}",
            "User name",
            "String",
            "User name at the registry.",
            NoEcho=True,
            AllowedPattern=constraints.USERNAME,
            ConstraintDescription="Not empty; no colon, no control characters, no {{resolve:.",
        )
        add(
            group,
            f"Password{n}",
            "Password or access token",
            "String",
            "Stored in AWS Secrets Manager alone. A read-only access token is best.",
            NoEcho=True,
            AllowedPattern=constraints.PASSWORD,
            ConstraintDescription="Not empty; no line breaks, no control characters, "
            "no {{resolve:.",
        )
    add(
        registry,
        "KmsKeyArn",
        "KMS key",
        "String",
        "ARN of a customer managed key that encrypts the secret. If empty, Secrets Manager uses "
        "the AWS managed key.",
        Default="",
        AllowedPattern="|" + constraints.KMS_KEY_ARN,
        ConstraintDescription="The ARN of a KMS key (not of an alias), or empty.",
    )
    if settings.secret_arns or settings.on_instances:
        add(
            registry,
            "CredentialRefreshMinutes",
            "Refresh interval (minutes)",
            "Number",
            "How often running instances read the secret again, give or take a minute.",
            **_number(constraints.REFRESH_MINUTES, constraints.DEFAULT_REFRESH_MINUTES),
        )
    if settings.cached:
        least, most = constraints.CACHE_PREFIX_LENGTH
        add(
            caching,
            "CachePrefix",
            "Prefix of cached images",
            "String",
            "Beginning of the names of cached images in ECR, such as genomics: no other pull-through "
            "cache rule in this region may have it.",
            AllowedPattern=constraints.CACHE_PREFIX,
            MinLength=least,
            MaxLength=most,
            ConstraintDescription=f"{least} to {most} lower-case letters, digits and . _ - /, such as "
            "genomics.",
        )
        add(
            caching,
            "CacheDays",
            "Days until a cached image expires",
            "Number",
            "ECR deletes a cached image after this time. The next pull caches it again.",
            **_number(constraints.CACHE_DAYS, constraints.DEFAULT_CACHE_DAYS),
        )
    add(
        network,
        "SubnetIDs",
        "Subnets",
        "List<AWS::EC2::Subnet::Id>",
        "Subnets for the instances. They need a route to the registry, usually to the internet.",
    )
    add(
        network,
        "SecurityGroupIDs",
        "Security groups",
        "List<AWS::EC2::SecurityGroup::Id>",
        "Security groups for the instances. They must allow outbound HTTPS; no inbound rule is "
        "needed.",
    )
    add(
        compute,
        "ProvisioningModel",
        "Provisioning model",
        "String",
        "EC2: On-Demand Instances. SPOT: Spot Instances, which cost less and can be interrupted.",
        Default=constraints.PROVISIONING_MODELS[0],
        AllowedValues=list(constraints.PROVISIONING_MODELS),
    )
    add(
        compute,
        "InstanceTypes",
        "Instance types",
        "CommaDelimitedList",
        "Instance types or families, such as m7i or c7g.4xlarge. Do not mix x86 and Graviton.",
        Default=constraints.DEFAULT_INSTANCE_TYPES[settings.image_type],
    )
    add(
        compute,
        "MaxvCpus",
        "Maximum vCPUs",
        "Number",
        "Maximum vCPUs of all instances together. No instances run while there are no jobs.",
        **_number(constraints.MAX_VCPUS, constraints.DEFAULT_MAX_VCPUS),
    )
    add(
        compute,
        "RootVolumeGiB",
        "Root volume (GiB)",
        "Number",
        "Size of each instance's root volume, which holds images and what jobs write into their "
        "containers.",
        **_number(constraints.ROOT_VOLUME_GIB, constraints.DEFAULT_ROOT_VOLUME_GIB),
    )
    add(
        compute,
        "RootVolumeThroughput",
        "Root volume throughput (MiB/s)",
        "Number",
        "Image layers are written to the root volume. Above 125, AWS charges for the throughput.",
        **_number(constraints.ROOT_VOLUME_THROUGHPUT, constraints.DEFAULT_ROOT_VOLUME_THROUGHPUT),
    )
    add(
        compute,
        "RootVolumeIops",
        "Root volume IOPS",
        "Number",
        "At least four per MiB/s of throughput. Above 3,000, AWS charges for them.",
        **_number(constraints.ROOT_VOLUME_IOPS, constraints.DEFAULT_ROOT_VOLUME_IOPS),
    )
    add(
        compute,
        "ImageId",
        "Machine image",
        "String",
        "An AMI of your own, with the ECS agent and python3. If empty, AWS Batch's current image.",
        Default="",
        AllowedPattern="|" + constraints.IMAGE_ID,
        ConstraintDescription="The ID of an AMI, such as ami-0123456789abcdef0, or empty.",
    )
    add(
        compute,
        "ImagePullBehavior",
        "Image pull behavior",
        "String",
        "ECS_IMAGE_PULL_BEHAVIOR of the ECS agent. default: pull each time, and use the cached "
        "image if that fails.",
        Default=constraints.PULL_BEHAVIORS[0],
        AllowedValues=list(constraints.PULL_BEHAVIORS),
    )
    add(
        permissions,
        "InstancePolicyArns",
        "Policies for the instance role",
        "String",
        "Comma-separated ARNs of IAM policies that every job on the instances can use, such as one for S3.",
        Default="",
        AllowedPattern=constraints.POLICY_ARNS,
        ConstraintDescription="ARNs of IAM policies, or empty.",
    )
    add(
        permissions,
        "JobPolicyArns",
        "Policies for a job role",
        "String",
        "Comma-separated ARNs of IAM policies of a role for jobs. If empty, the stack has no job role.",
        Default="",
        AllowedPattern=constraints.POLICY_ARNS,
        ConstraintDescription="ARNs of IAM policies, or empty.",
    )
    add(
        permissions,
        "Ssm",
        "Systems Manager",
        "String",
        "true lets AWS Systems Manager reach the instances: for sessions, and to rotate at once.",
        Default="false",
        AllowedValues=["false", "true"],
    )
    add(
        updates,
        "JobTimeoutMinutes",
        "Time for running jobs (minutes)",
        "Number",
        "How long running jobs may continue when an update replaces their instances.",
        **_number(constraints.JOB_TIMEOUT_MINUTES, constraints.DEFAULT_JOB_TIMEOUT_MINUTES),
    )
    add(
        updates,
        "TerminateJobs",
        "Terminate running jobs",
        "String",
        "true terminates running jobs at once when an update replaces their instances.",
        Default="false",
        AllowedValues=["false", "true"],
    )
    template.set_metadata(
        {
            # What a later `deploy` keeps (text.read_template).
            "batchreg": {
                "Version": __version__,
                "ImageType": settings.image_type,
                "SecretArns": list(settings.secret_arns),
                **(
                    {"Cached": {str(slot): key for slot, key in settings.cached}}
                    if settings.cached
                    else {}
                ),
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
    template.add_condition("HasImageId", Not(Equals(Ref("ImageId"), "")))
    template.add_condition("HasSsm", Equals(Ref("Ssm"), "true"))
    for name in ("InstancePolicy", "JobPolicy"):
        template.add_condition(f"Has{name}", Not(Equals(Ref(f"{name}Arns"), "")))


def _registry_url(cached: str | None) -> dict[str, Any]:
    """Return the rules of a RegistryUrl; that of a cached registry is what its rule in ECR says."""
    if cached:
        return {"Default": cached, "AllowedValues": [cached]}
    return {
        "Default": constraints.DOCKER_HUB,
        "AllowedPattern": constraints.REGISTRY_URL,
        "ConstraintDescription": "A host with a dot or a port, such as ghcr.io; no :443 after "
        f"https://. Docker Hub: {constraints.DOCKER_HUB}",
    }


def _number(limits: tuple[int, int], default: int) -> dict[str, int]:
    return {"Default": default, "MinValue": limits[0], "MaxValue": limits[1]}


def _secrets(template: Template, settings: Settings) -> list[Any]:
    """Add a secret for each registry, unless the settings name existing ones.

    Return the ARNs of those that the roles may read: a cached registry's is for ECR alone.
    """
    if settings.secret_arns:
        return list(settings.secret_arns)
    made = {slot: _secret(template, settings, slot) for slot in settings.slots}
    return [Ref(made[slot]) for slot in settings.on_instances]


def _secret(template: Template, settings: Settings, slot: int) -> secretsmanager.Secret:
    n, upstream = suffix(slot), settings.upstreams.get(slot)
    fields = [("username", "Username"), ("password", "Password"), ("registry_url", "RegistryUrl")]
    if upstream:
        fields = [("username", "Username"), ("accessToken", "Password")]
    own: dict[str, Any] = {"KmsKeyId": If("HasKmsKey", Ref("KmsKeyArn"), NoValue)}
    if upstream:
        own = cache.of_secret(settings.directories[slot])
    pieces: list[Any] = []
    for key, parameter in fields:
        pieces += ['{"' if not pieces else '","', key, '":"', _json_escaped(Ref(parameter + n))]
    secret = template.add_resource(
        secretsmanager.Secret(
            f"RegistrySecret{n}",
            Description=Sub(
                "Registry credentials of ${AWS::StackName}"
                + f" for ${{RegistryUrl{n}}}" * bool(upstream)
            ),
            **own,
            SecretString=Join("", [*pieces, '"}']),
            DeletionPolicy="Delete",
            UpdateReplacePolicy="Delete",
        )
    )
    _output(template, f"RegistrySecret{n}Arn", Ref(secret), "Registry credentials")
    return secret


def _json_escaped(value: AWSHelperFn) -> AWSHelperFn:
    """Escape `value` for a JSON string: a Join over a Split replaces one text by another."""
    for raw, escaped in JSON_ESCAPES:
        value = Join(escaped, Split(raw, value))
    return value


def _roles(template: Template, settings: Settings, secrets: list[Any]) -> iam.InstanceProfile:
    """Add the roles; two of them may read exactly these secrets, and fill the cache.

    Return the instance profile.
    """
    reading = iam.Policy(
        PolicyName="ReadRegistryLogin",
        PolicyDocument=document(allow("secretsmanager:GetSecretValue", Resource=secrets)),
    )
    pulling = [*([reading] if secrets else []), *([cache.permission()] if settings.cached else [])]

    def role(name: str, service: str, text: str, **more: Any) -> iam.Role:
        created = template.add_resource(
            iam.Role(
                name,
                AssumeRolePolicyDocument=document(
                    allow("sts:AssumeRole", Principal={"Service": service})
                ),
                **more,
            )
        )
        condition = {"Condition": more["Condition"]} if "Condition" in more else {}
        _output(template, f"{name}Arn", GetAtt(created, "Arn"), text, **condition)
        return created

    # No intrinsic function but Split makes one list of a list and what a condition adds to it.
    policies = Sub(
        "arn:${AWS::Partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
        "${Ssm}${More}",
        Ssm=If(
            "HasSsm", Sub(",arn:${AWS::Partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"), ""
        ),
        More=If("HasInstancePolicy", Sub(",${InstancePolicyArns}"), ""),
    )
    instance_role = role(
        "InstanceRole",
        "ec2.amazonaws.com",
        "Role of the instances",
        ManagedPolicyArns=Split(",", policies),
        Policies=pulling,
        **_lint_exception(settings),
    )
    profile = template.add_resource(
        iam.InstanceProfile("InstanceProfile", Roles=[Ref(instance_role)])
    )
    _output(template, "InstanceProfileArn", GetAtt(profile, "Arn"), "Profile of the instances")
    execution_role = role(
        "JobExecutionRole",
        "ecs-tasks.amazonaws.com",
        "Execution role for job definitions with repositoryCredentials",
        ManagedPolicyArns=[
            Sub(
                "arn:${AWS::Partition}:iam::aws:policy/service-role/"
                "AmazonECSTaskExecutionRolePolicy"
            )
        ],
        Policies=pulling,
        **_lint_exception(settings),
    )
    role(
        "JobRole",
        "ecs-tasks.amazonaws.com",
        "Role for jobs: their code's own permissions",
        ManagedPolicyArns=Split(",", Ref("JobPolicyArns")),
        Condition="HasJobPolicy",
    )
    if secrets:
        template.add_resource(key_policy(instance_role, execution_role))
    return profile


def key_policy(*roles: iam.Role) -> iam.PolicyType:
    """Return the policy that lets `roles` of the same stack decrypt secrets with its KMS key.

    A resource of its own: linters do not look into a role one of whose policies is an If. Its name
    is not the one that the roles' own policy had in 0.1.0. When an update is rolled back,
    CloudFormation first restores that one, and then deletes this one by its name.
    """
    return iam.PolicyType(
        "KeyPolicy",
        PolicyName="DecryptRegistryCredentials",
        PolicyDocument=decrypt_policy(),
        Roles=[Ref(role) for role in roles],
        Condition="HasKmsKey",
    )


def decrypt_policy() -> dict[str, Any]:
    """Return a policy document for the stack's KMS key, through Secrets Manager alone."""
    via = Sub("secretsmanager.${AWS::Region}.${AWS::URLSuffix}")
    return document(
        allow(
            "kms:Decrypt",
            Resource=Ref("KmsKeyArn"),
            Condition={"StringEquals": {"kms:ViaService": via}},
        )
    )


def _lint_exception(settings: Settings) -> dict[str, Any]:
    """Silence I3042, which asks for pseudo parameters in ARNs: an existing secret's is as it is."""
    exception = {"cfn-lint": {"config": {"ignore_checks": ["I3042"]}}}
    return {"Metadata": exception} if settings.secret_arns else {}


def _launch_template(template: Template, settings: Settings) -> ec2.LaunchTemplate:
    secret_ids = settings.secret_arns or [
        f"${{RegistrySecret{suffix(slot)}}}" for slot in settings.on_instances
    ]
    launch_template = template.add_resource(
        ec2.LaunchTemplate(
            "LaunchTemplate",
            LaunchTemplateData=ec2.LaunchTemplateData(
                BlockDeviceMappings=[
                    ec2.LaunchTemplateBlockDeviceMapping(
                        DeviceName="/dev/xvda",  # the root volume of the ECS-optimized AL2023 images
                        Ebs=ec2.EBSBlockDevice(
                            Encrypted=True,
                            VolumeSize=Ref("RootVolumeGiB"),
                            VolumeType="gp3",
                            Throughput=Ref("RootVolumeThroughput"),
                            Iops=Ref("RootVolumeIops"),
                        ),
                    )
                ],
                # An instance without credentials powers off; it must not remain as a stopped one.
                InstanceInitiatedShutdownBehavior="terminate",
                # One hop: containers with a network of their own cannot get the role's credentials.
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
    """Add the compute environment and its queue, so that CloudFormation updates them in place.

    This requires the service-linked role, no names, no DesiredvCpus, an allocation strategy other
    than BEST_FIT and the launch template's version by number
    (docs.aws.amazon.com/batch/latest/userguide/updating-compute-environments.html).
    """
    environment = template.add_resource(
        batch.ComputeEnvironment(
            f"ComputeEnvironment{suffix(settings.generation)}",
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
                Ec2Configuration=[
                    batch.Ec2ConfigurationObject(
                        ImageType=settings.image_type,
                        ImageIdOverride=If("HasImageId", Ref("ImageId"), NoValue),
                    )
                ],
                LaunchTemplate=batch.LaunchTemplateSpecification(
                    LaunchTemplateId=Ref(launch_template),
                    Version=GetAtt(launch_template, "LatestVersionNumber"),
                ),
                Tags={"Name": Ref("AWS::StackName")},
                UpdateToLatestImageVersion=True,
            ),
        )
    )
    # troposphere knows UpdatePolicy as the resource attribute of that name; Batch's is a property.
    environment.properties["UpdatePolicy"] = batch.UpdatePolicy(
        TerminateJobsOnUpdate=Ref("TerminateJobs"),
        JobExecutionTimeoutMinutes=Ref("JobTimeoutMinutes"),
    )
    queue = _queue(template, "JobQueue", environment)
    _output(template, "ComputeEnvironmentArn", Ref(environment), "Compute environment")
    _output(template, "JobQueueArn", Ref(queue), "Job queue: submit jobs here")


def _fargate(template: Template) -> None:
    """Add a compute environment and a queue for jobs whose definitions have credentials."""
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


def _output(template: Template, name: str, value: Any, text: str, **condition: str) -> None:
    template.add_output(Output(name, Description=text, Value=value, **condition))
