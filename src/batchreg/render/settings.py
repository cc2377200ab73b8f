"""The choices that shape a template, and the names under which users make them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchreg.errors import BatchregError
from batchreg.render.constraints import IMAGE_TYPES, ON_FAILURE, SECRET_ARN

if TYPE_CHECKING:
    from batchreg.render.upstreams import Upstream

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
    "root_volume_throughput": "RootVolumeThroughput",
    "root_volume_iops": "RootVolumeIops",
    "image_id": "ImageId",
    "instance_policy_arn": "InstancePolicyArns",
    "job_policy_arn": "JobPolicyArns",
    "ssm": "Ssm",
    "job_timeout_minutes": "JobTimeoutMinutes",
    "terminate_jobs": "TerminateJobs",
    "image_pull_behavior": "ImagePullBehavior",
    "cache_prefix": "CachePrefix",
    "cache_days": "CacheDays",
}


# (slot, the agent's key) of registries that ECR pulls from.
Cached = tuple[tuple[int, str], ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every choice that shapes the template. The same settings give the same bytes.

    `secret_arns`: existing secrets with the credentials; without one, the stack creates its own.
    `image_type`: one of IMAGE_TYPES. `user_parts`: MIME parts for the end of the user data.
    `slots`: numbers of the registries whose secrets the stack creates; a registry keeps its number
    for life, so that adding and removing others does not affect it. `fargate`: a second compute
    environment and queue, for jobs whose definitions have credentials of their own.
    `generation`: of the compute environment, whose logical id has this number; a new generation
    replaces an environment that cannot be repaired, behind the same queue. `on_failure`: what an
    instance without credentials does, one of ON_FAILURE. `cached`:
    the registries that ECR pulls from, so that no instance needs their credentials.
    Raises BatchregError for a choice that cannot work.
    """

    secret_arns: tuple[str, ...] = ()
    image_type: str = IMAGE_TYPES[0]
    user_parts: tuple[str, ...] = ()
    fargate: bool = False
    slots: tuple[int, ...] = (1,)
    generation: int = 1
    on_failure: str = "park"
    cached: Cached = ()

    def __post_init__(self) -> None:
        for arn in self.secret_arns:
            if not re.fullmatch(SECRET_ARN, arn):
                raise BatchregError(
                    f"{arn!r} is not the ARN of a secret.",
                    "Copy the whole ARN, including the six characters at its end, from "
                    "`aws secretsmanager list-secrets`.",
                )
        if len({arn.split(":")[3] for arn in self.secret_arns}) > 1:
            raise BatchregError(
                "The secrets are in several regions, but an instance reads from one.",
                "Replicate them to the region of the stack.",
            )
        if len(set(self.secret_arns)) < len(self.secret_arns):
            raise BatchregError("A secret's ARN is given twice.", "Leave one out.")
        if self.image_type not in IMAGE_TYPES:
            raise BatchregError(
                f"batchreg does not support the image type {self.image_type!r}.",
                f"Use {' or '.join(IMAGE_TYPES)}.",
            )
        if self.on_failure not in ON_FAILURE:
            raise BatchregError(
                f"An instance without credentials cannot {self.on_failure!r}.",
                f"Use {' or '.join(ON_FAILURE)}.",
            )
        if self.cached and self.secret_arns:
            raise BatchregError(
                "ECR reads credentials from secrets of its own form, which the stack creates.",
                "Give the credentials with --registry instead of --secret-arn.",
            )
        for _, key in self.cached:
            _require_upstream(key)

    @property
    def upstreams(self) -> dict[int, Upstream]:
        """Return {slot: what ECR knows the registry as} of the cached registries."""
        if not self.cached:
            return {}
        from batchreg.render.upstreams import upstream_of

        found = {slot: upstream_of(key) for slot, key in self.cached}
        return {slot: upstream for slot, upstream in found.items() if upstream}

    @property
    def directories(self) -> dict[int, str]:
        """Return {slot: what follows the cache's prefix in the names of the registry's images}.

        There may be several registries of Azure's.
        """
        return {
            slot: one.short + (suffix(slot) if one.short == "azure" else "")
            for slot, one in self.upstreams.items()
        }

    @property
    def on_instances(self) -> tuple[int, ...]:
        """Return the slots whose credentials the instances get."""
        return tuple(slot for slot in self.slots if slot not in dict(self.cached))


def _require_upstream(key: str) -> None:
    from batchreg.render.upstreams import supported, upstream_of

    upstream = upstream_of(key)
    if not upstream:
        raise BatchregError(
            f"ECR's pull-through cache does not support {key}.",
            f"It pulls private images from {supported()}.",
        )
    if not upstream.credentials:
        raise BatchregError(
            f"ECR pulls from {key} without credentials, so it cannot cache private images.",
            f"Leave {key} out of --pull-through-cache: its credentials stay on the instances.",
        )


def suffix(slot: int) -> str:
    """Return what follows Username, Password, RegistryUrl and RegistrySecret for a slot."""
    return "" if slot == 1 else str(slot)


def slots_of(names: Iterable[str]) -> tuple[int, ...]:
    """Return the slots for which `names` has a RegistryUrl parameter."""
    found = (re.fullmatch(r"RegistryUrl([0-9]*)", name) for name in names)
    return tuple(sorted(int(match[1] or 1) for match in found if match))
