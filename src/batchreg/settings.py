"""The choices that shape a template, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchreg.errors import BatchregError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_FILE = "batchreg.yaml"

# AWS Batch refuses new compute environments on its Amazon Linux 2 images since 2026-06-30.
IMAGE_TYPES = ("ECS_AL2023", "ECS_AL2023_NVIDIA")

# arn:partition:secretsmanager:region:account:secret:name-suffix. IAM policies need it whole.
SECRET_ARN = re.compile(
    r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]+-[A-Za-z0-9]{6}"
)

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
    "stack_name": False, "region": False, "profile": False, "role_arn": False, "tag": True,
    "secret_arn": True, "image_type": False, "user_data": False,
    "fargate": False, "registries": True,
    **dict.fromkeys(PARAMETERS.keys() - {"password"}, False),
    "subnet_id": True, "security_group_id": True, "instance_type": True,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every choice that shapes the template. The same settings give the same bytes.

    `secret_arns`: existing secrets that hold the logins; without one, the stack makes its own.
    `image_type`: one of IMAGE_TYPES. `user_parts`: MIME parts for the end of the user data.
    `slots`: numbers of the registries whose secrets the stack makes; a registry keeps its number
    for life, so that adding and removing others leaves it alone. `fargate`: a second compute
    environment and queue, for jobs that carry their own login.
    Raises BatchregError for a choice that cannot work.
    """

    secret_arns: tuple[str, ...] = ()
    image_type: str = IMAGE_TYPES[0]
    user_parts: tuple[str, ...] = ()
    fargate: bool = False
    slots: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        for arn in self.secret_arns:
            if not SECRET_ARN.fullmatch(arn):
                raise BatchregError(
                    f"{arn!r} is not the ARN of a secret: copy the whole of it, with the six "
                    "characters at its end, from `aws secretsmanager list-secrets`."
                )
        if len({arn.split(":")[3] for arn in self.secret_arns}) > 1:
            raise BatchregError("The secrets are in several regions: an instance asks one. "
                                "Replicate them into the region of the stack.")
        if len(set(self.secret_arns)) < len(self.secret_arns):
            raise BatchregError("A secret's ARN is given twice: leave one out.")
        if self.image_type not in IMAGE_TYPES:
            raise BatchregError(
                f"{self.image_type!r} is not an image type that batchreg supports: "
                f"use {' or '.join(IMAGE_TYPES)}."
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

    from batchreg import userdata

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = type("Loader", (base,), {"yaml_multi_constructors": {
        "!": lambda loader, tag, node: getattr(node, "value", None)}})
    try:
        parsed = yaml.load(body, loader)
        made = parsed["Metadata"]["batchreg"]
        data = parsed["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
        text = data["UserData"]["Fn::Base64"]
        return made["Version"], Settings(
            secret_arns=tuple(made["SecretArns"]), image_type=made["ImageType"],
            user_parts=userdata.user_parts(text if isinstance(text, str) else text["Fn::Sub"]),
            fargate="FargateJobQueue" in parsed["Resources"],
            slots=slots_of(parsed["Parameters"]) or (1,))
    except (yaml.YAMLError, KeyError, TypeError, BatchregError):
        return None


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the configuration file at `path` says, {key: string or list}, and {key: where}.

    A relative `user_data` path starts at the file's own folder. Raises BatchregError, with the
    line where there is one.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as error:
        raise BatchregError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BatchregError(f"{path} is not UTF-8 text: save it as such.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise BatchregError(f"{where}: {error.problem or 'not YAML'}: mend the line.") from None
    except yaml.YAMLError:  # a control character, say
        raise BatchregError(f"{path} is not YAML: mend or move it.") from None
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise BatchregError(f"{path} is not a mapping: write `key: value` lines.")
    config: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key_node, value_node in node.value:
        where = f"{path}, line {key_node.start_mark.line + 1}"
        key = key_node.value
        if key == "password":
            raise BatchregError(f"{where}: a password does not belong in a file: "
                                "use --password-stdin or BATCHREG_PASSWORD.")
        if key not in CONFIG_KEYS:
            raise BatchregError(f"{where}: unknown key {key!r}{_nearest(key)}.")
        if key in config:
            raise BatchregError(f"{where}: {key} stands there twice: keep one.")
        config[key], places[key] = _value(where, key, value_node), where
    if "user_data" in config:
        config["user_data"] = str(path.parent / config["user_data"])
    return config, places


def _value(where: str, key: str, node: Any) -> Any:
    import yaml

    if key == "registries":
        return [_registry(where, item)
                for item in (node.value if isinstance(node, yaml.SequenceNode) else [node])]
    several = CONFIG_KEYS[key] and isinstance(node, yaml.SequenceNode)
    nodes = node.value if several else [node]
    if not all(isinstance(item, yaml.ScalarNode) and item.value for item in nodes):
        wanted = "a list of strings" if CONFIG_KEYS[key] else "one string"
        raise BatchregError(f"{where}: {key} takes {wanted}.")
    values = [str(item.value) for item in nodes]
    return values if CONFIG_KEYS[key] else values[0]


def _registry(where: str, node: Any) -> str:
    """Return an entry of `registries` as --registry takes it, checked."""
    import yaml

    from batchreg.logins import Wanted

    where = where.rsplit(" ", 1)[0] + f" {node.start_mark.line + 1}"
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    fields = {str(key.value): value.value for key, value in pairs}
    if isinstance(node, yaml.ScalarNode):
        text = str(node.value)
    elif "url" not in fields or fields.keys() - {"url", "username", "password"} or not all(
            isinstance(value, str) and "," not in value for value in fields.values()):
        raise BatchregError(f"{where}: a registry is a mapping of url, username and password "
                            "(prompt, docker-config or env:NAME).")
    else:
        text = ",".join([fields.pop("url"), *(f"{key}={value}" for key, value in fields.items())])
    try:
        Wanted.parse(text).key  # noqa: B018  a wrong one raises
    except BatchregError as problem:
        raise BatchregError(f"{where}: {problem}") from None
    return text


def _nearest(key: object) -> str:
    import difflib

    near = difflib.get_close_matches(str(key), CONFIG_KEYS, n=1)
    keys = ", ".join(sorted(CONFIG_KEYS))
    return f": do you mean {near[0]}?" if near else f": the keys are {keys}"
