"""The choices that shape a template, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from batchreg.errors import BatchregError

# AWS Batch refuses new compute environments on its Amazon Linux 2 images since 2026-06-30.
IMAGE_TYPES = ("ECS_AL2023", "ECS_AL2023_NVIDIA")

# What an instance without credentials does: its agent is parked, or starts without them.
ON_FAILURE = ("park", "join")

# arn:partition:secretsmanager:region:account:secret:name-suffix. IAM policies need it whole.
SECRET_ARN = re.compile(
    r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]+-[A-Za-z0-9]{6}"
)

# CloudFormation would take {{resolve:...}} for a reference to another value, in a parameter too.
CREDENTIAL = r"(?!.*\{\{resolve:)[^\x00-\x1f\x7f]+"
USERNAME = r"(?!.*\{\{resolve:)[^:\x00-\x1f\x7f]+"

# The template's parameters by the option that sets them.
PARAMETERS = {
    "registry_url": "RegistryUrl",
    "username": "Username",
    "password": "Password",
    "kms_key_arn": "KmsKeyArn",
    "credential_refresh_minutes": "CredentialRefreshMinutes",
    "subnet_id": "SubnetIDs",
    "security_group_id": "SecurityGroupIDs",
    "provisioning_model": "ProvisioningModel",
    "instance_type": "InstanceTypes",
    "max_vcpus": "MaxvCpus",
    "root_volume_gib": "RootVolumeGiB",
    "image_pull_behavior": "ImagePullBehavior",
}

# What batchreg.yaml may hold: an option that is worth keeping, and whether it takes several values.
CONFIG_KEYS = {
    "stack_name": False,
    "region": False,
    "profile": False,
    "role_arn": False,
    "tag": True,
    "secret_arn": True,
    "image_type": False,
    "user_data": False,
    "fargate": False,
    "registries": True,
    **dict.fromkeys(PARAMETERS.keys() - {"password"}, False),
    "subnet_id": True,
    "security_group_id": True,
    "instance_type": True,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every choice that shapes the template. The same settings give the same bytes.

    `secret_arns`: existing secrets that hold the logins; without one, the stack makes its own.
    `image_type`: one of IMAGE_TYPES. `user_parts`: MIME parts for the end of the user data.
    `slots`: numbers of the registries whose secrets the stack makes; a registry keeps its number
    for life, so that adding and removing others leaves it alone. `fargate`: a second compute
    environment and queue, for jobs that carry their own login. `on_failure`: one of ON_FAILURE.
    Raises BatchregError for a choice that cannot work.
    """

    secret_arns: tuple[str, ...] = ()
    image_type: str = IMAGE_TYPES[0]
    user_parts: tuple[str, ...] = ()
    fargate: bool = False
    slots: tuple[int, ...] = (1,)
    on_failure: str = "park"

    def __post_init__(self) -> None:
        for arn in self.secret_arns:
            if not SECRET_ARN.fullmatch(arn):
                raise BatchregError(
                    f"{arn!r} is not the ARN of a secret: copy the whole of it, with the six "
                    "characters at its end, from `aws secretsmanager list-secrets`."
                )
        if len({arn.split(":")[3] for arn in self.secret_arns}) > 1:
            raise BatchregError(
                "The secrets are in several regions: an instance asks one. "
                "Replicate them into the region of the stack."
            )
        if len(set(self.secret_arns)) < len(self.secret_arns):
            raise BatchregError("A secret's ARN is given twice: leave one out.")
        if self.image_type not in IMAGE_TYPES:
            raise BatchregError(
                f"{self.image_type!r} is not an image type that batchreg supports: "
                f"use {' or '.join(IMAGE_TYPES)}."
            )
        if self.on_failure not in ON_FAILURE:
            raise BatchregError(
                f"{self.on_failure!r} is not something an instance without credentials can do.",
                f"Use {' or '.join(ON_FAILURE)}.",
            )


def suffix(slot: int) -> str:
    """Return what follows Username, Password, RegistryUrl and RegistrySecret for a slot."""
    return "" if slot == 1 else str(slot)


def slots_of(names: Iterable[str]) -> tuple[int, ...]:
    """Return the slots for which `names` has a RegistryUrl parameter."""
    found = (re.fullmatch(r"RegistryUrl([0-9]*)", name) for name in names)
    return tuple(sorted(int(match[1] or 1) for match in found if match))


def of_template(body: str) -> tuple[str, Settings] | None:
    """Return (batchreg's version, settings) of a rendered template, None for anybody else's."""
    import yaml

    from batchreg.render import userdata

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = type(
        "Loader",
        (base,),
        {"yaml_multi_constructors": {"!": lambda loader, tag, node: getattr(node, "value", None)}},
    )
    try:
        parsed = yaml.load(body, loader)
        made = parsed["Metadata"]["batchreg"]
        data = parsed["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
        text = data["UserData"]["Fn::Base64"]
        text = text if isinstance(text, str) else text["Fn::Sub"]
        return made["Version"], Settings(
            secret_arns=tuple(made["SecretArns"]),
            image_type=made["ImageType"],
            user_parts=userdata.user_parts(text),
            on_failure=userdata.on_failure(text),
            fargate="FargateJobQueue" in parsed["Resources"],
            slots=slots_of(parsed["Parameters"]) or (1,),
        )
    except (yaml.YAMLError, KeyError, TypeError, BatchregError):
        return None
