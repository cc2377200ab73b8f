"""What a deploy would change, in the user's language, and what that does to running jobs.

Two deployments are compared: a template with the values of its parameters, before and after. All of
it is pure: CloudFormation is not asked, so a dry run shows the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchreg.registry.names import host_of, named
from batchreg.render.settings import Settings, slots_of, suffix
from batchreg.render.text import parse, read_template

# An update of one of these replaces the instances of a compute environment.
# Source: docs.aws.amazon.com/batch/latest/userguide/infrastructure-updates.html
REPLACES_INSTANCES = frozenset(
    (
        "AllocationStrategy",
        "BidPercentage",
        "Ec2Configuration",
        "Ec2KeyPair",
        "ImageId",
        "InstanceRole",
        "InstanceTypes",
        "LaunchTemplate",
        "PlacementGroup",
        "SecurityGroupIds",
        "Subnets",
        "Tags",
        "Type",
        "UpdateToLatestImageVersion",
    )
)
ENVIRONMENT = "compute environment"


@dataclass(frozen=True)
class Deployment:
    """A template, parsed with the long names of its intrinsics, and the values that it is given.

    `secrets`: parameters that have a new value which is not shown.
    """

    template: Mapping[str, Any]
    settings: Settings
    values: Mapping[str, str] = field(repr=False)
    tags: Mapping[str, str] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()

    def value(self, name: str) -> str:
        """Return a parameter's value: as given, or its default."""
        parameter = self.template["Parameters"].get(name, {})
        return str(self.values.get(name, parameter.get("Default", "")))


@dataclass(frozen=True)
class Change:
    """A setting, what it is and what it would be; empty where it is not there."""

    setting: str
    old: str | bool
    new: str | bool


@dataclass(frozen=True)
class Preview:
    """What changes. `replaced`: the properties for which AWS Batch replaces the instances."""

    changes: tuple[Change, ...]
    replaced: tuple[str, ...]

    @property
    def affects_jobs(self) -> bool:
        return bool(self.replaced) or any(change.setting == ENVIRONMENT for change in self.changes)


def deployment(body: str, values: Mapping[str, str], **more: Any) -> Deployment | None:
    """Return the deployment of a template's text; None for a template that is not batchreg's."""
    deployed = read_template(body)
    return Deployment(parse(body), deployed.settings, values, **more) if deployed else None


def compare(old: Deployment, new: Deployment) -> Preview:
    """Return what differs between the stack as it is and as it would be."""
    return Preview(
        (*_registries(old, new), *_structure(old, new), *_values(old, new), *_tags(old, new)),
        tuple(_replaced(old, new)),
    )


def effect_on_jobs(preview: Preview, new: Deployment, running: int) -> str:
    """Return what an update does to running jobs, empty if it leaves the instances alone.

    `running`: how many jobs run now, 0 if that is not known.
    """
    jobs = f"{running} running job{'' if running == 1 else 's'}" if running else "Running jobs"
    if not preview.affects_jobs:
        return ""
    if not preview.replaced:
        return (
            "A new compute environment takes the place of the present one, behind the same queue; "
            "waiting jobs run there."
            + (f" {jobs} in the present one are terminated with it." if running else "")
        )
    minutes = int(new.value("JobTimeoutMinutes"))
    policy = (
        "are terminated at once (--terminate-jobs)"
        if new.value("TerminateJobs") == "true"
        else f"may continue for {_duration(minutes)} (--job-timeout-minutes) and are then terminated"
    )
    why = ", ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in preview.replaced)
    return (
        f"AWS Batch replaces the instances (new {why}). {jobs} {policy}; a terminated job is retried "
        "if its retry strategy allows it."
    )


def image_names(old: Deployment, new: Deployment) -> str:
    """Return what becomes of the names of images, empty if they stay as they are."""
    before, after = ({key for _, key in one.settings.cached} for one in (old, new))
    if come := ", ".join(sorted(map(host_of, after - before))):
        return (
            f"From then on instances have no credentials for {come}: jobs have to name its images as "
            "batchreg image prints them."
        )
    if gone := ", ".join(sorted(map(host_of, before - after))):
        return (
            f"From then on jobs have to name the images of {gone} without ECR; what ECR has cached "
            "can still be pulled from there."
        )
    return ""


def _duration(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    number, unit = (minutes, "minute") if rest else (hours, "hour")
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _registries(old: Deployment, new: Deployment) -> Iterator[Change]:
    """Compare the registries: by slot, as their secrets stay where they are."""
    slots = {*slots_of(old.template["Parameters"]), *slots_of(new.template["Parameters"])}
    for slot in sorted(slots):
        n = suffix(slot)
        before, after = (
            named(one.value(f"RegistryUrl{n}"))
            if f"RegistryUrl{n}" in one.template["Parameters"]
            else ""
            for one in (old, new)
        )
        if before != after:
            yield Change("registry", before, after)
        paths = [
            "through ECR" if slot in dict(one.settings.cached) else "by the instances"
            for one in (old, new)
        ]
        if after and paths[0] != paths[1]:
            yield Change(f"images of {after} are pulled", paths[0] if before else "", paths[1])
        if before and after and {f"Username{n}", f"Password{n}"} & new.secrets:
            yield Change(f"credentials of {after}", "as deployed", "replaced by those given")
    gone, come = set(old.settings.secret_arns), set(new.settings.secret_arns)
    for arn in sorted(gone - come):
        yield Change("secret of your own", arn, "")
    for arn in sorted(come - gone):
        yield Change("secret of your own", "", arn)


def _structure(old: Deployment, new: Deployment) -> Iterator[Change]:
    before, after = old.settings, new.settings
    if before.generation != after.generation:
        yield Change(ENVIRONMENT, "as deployed", "replaced by a new one")
    if before.image_type != after.image_type:
        yield Change("image type", before.image_type, after.image_type)
    if before.fargate != after.fargate:
        yield Change("Fargate queue", before.fargate, after.fargate)
    if before.on_failure != after.on_failure:
        yield Change("without credentials", before.on_failure, after.on_failure)
    if before.user_parts != after.user_parts:
        yield Change("your user data", _size(before.user_parts), _size(after.user_parts))
    elif (before.on_failure, before.on_instances) == (
        after.on_failure,
        after.on_instances,
    ) and _property(old, "LaunchTemplate", "UserData") != _property(
        new, "LaunchTemplate", "UserData"
    ):
        yield Change("batchreg's user data", "as deployed", "as this version writes it")


def _size(parts: tuple[str, ...]) -> str:
    return f"{sum(map(len, parts)):,} bytes" if parts else "none"


def _values(old: Deployment, new: Deployment) -> Iterator[Change]:
    """Compare the parameters by their labels, secrets and registries left out."""
    labels = new.template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterLabels"]
    for name, declared in new.template["Parameters"].items():
        if declared.get("NoEcho") or name.startswith("RegistryUrl"):
            continue
        before, after = old.value(name), new.value(name)
        if before == after:
            continue
        if declared.get("AllowedValues") == ["false", "true"]:
            yield Change(labels[name]["default"], before == "true", after == "true")
        else:
            yield Change(labels[name]["default"], before, after)


def _tags(old: Deployment, new: Deployment) -> Iterator[Change]:
    for key in sorted({*old.tags, *new.tags}):
        before, after = old.tags.get(key, ""), new.tags.get(key, "")
        if before != after:
            yield Change(f"tag {key}", before, after)


def _replaced(old: Deployment, new: Deployment) -> Iterator[str]:
    """Yield the properties whose change replaces the instances.

    The launch template counts where its own content changes: its version is a property.
    """
    before, after = (
        _evaluated(one, one.template["Resources"].get(_environment(one), {}))
        .get("Properties", {})
        .get("ComputeResources", {})
        for one in (old, new)
    )
    templates = [
        _evaluated(one, one.template["Resources"].get("LaunchTemplate", {})).get("Properties")
        for one in (old, new)
    ]
    if not before or not after or _environment(old) != _environment(new):
        return
    for name in sorted({*before, *after} & REPLACES_INSTANCES):
        if before.get(name) != after.get(name) or (
            name == "LaunchTemplate" and templates[0] != templates[1]
        ):
            yield name


def _environment(one: Deployment) -> str:
    """Return the logical id of the compute environment on EC2."""
    return f"ComputeEnvironment{suffix(one.settings.generation)}"


def _property(one: Deployment, resource: str, name: str) -> str:
    body = one.template["Resources"].get(resource, {})
    return json.dumps(body.get("Properties", {}).get("LaunchTemplateData", {}).get(name))


def _evaluated(one: Deployment, value: Any) -> Any:
    """Put in the parameters' values and decide the conditions; other intrinsics stay."""
    if isinstance(value, list):
        return [_evaluated(one, item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        function, argument = next(iter(value.items()))
        if function == "Ref" and argument in one.template["Parameters"]:
            return one.value(argument)
        if function == "Fn::If":
            return _evaluated(one, argument[1 if _holds(one, argument[0]) else 2])
        if function == "Fn::Sub" and isinstance(argument, str):
            named_values = {f"${{{name}}}": one.value(name) for name in one.template["Parameters"]}
            for placeholder, text in named_values.items():
                argument = argument.replace(placeholder, text)
            return {function: argument}
    return {key: _evaluated(one, item) for key, item in value.items()}


def _holds(one: Deployment, condition: str) -> bool:
    def decide(value: Any) -> bool:
        function, argument = next(iter(value.items()))
        if function == "Fn::Not":
            return not decide(argument[0])
        if function == "Fn::Equals":
            left, right = (_evaluated(one, side) for side in argument)
            return bool(left == right)
        if function == "Condition":
            return _holds(one, argument)
        if function in ("Fn::And", "Fn::Or"):
            return (all if function == "Fn::And" else any)(map(decide, argument))
        raise ValueError(f"{function} is not a condition of CloudFormation's")

    return decide(one.template["Conditions"][condition])
