"""What a deploy will do: a pure function of what the user gave and of the stack as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchreg.errors import BatchregError
from batchreg.registry.logins import DOCKER, ENV, PROMPT, Credentials, RegistrySpec
from batchreg.registry.names import host_of, key_of
from batchreg.render import constraints
from batchreg.render.settings import PARAMETERS, Settings, slots_of, suffix
from batchreg.stack import caching, slots
from batchreg.stack.states import LOSES_PARAMETERS, Stack

if TYPE_CHECKING:
    from troposphere import Template

    from batchreg.render.text import Deployed

DEFAULT_VPC = "default-vpc"
NETWORK = {"subnet_id": "SubnetIDs", "security_group_id": "SecurityGroupIDs"}
CREDENTIALS = {"registry_url": "RegistryUrl", "username": "Username", "password": "Password"}


@dataclass(frozen=True)
class RegistryInput(RegistrySpec):
    """A registry of --registry, with its password if the environment has it."""

    password: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the user gave, checked. What they did not give is absent.

    `parameters`: {the template's parameter: value}, with the credentials of a single registry.
    `registries`: all registries that the stack should have; empty for the options of a single one.
    `settings`: fields of Settings. `cache`: the agent's keys of the registries that ECR shall pull
    from, caching.ALL, or None to leave that as it is. `on_command_line`: names of options, such as subnet_id.
    """

    stack_name: str
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    registries: tuple[RegistryInput, ...] = field(default=(), repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    cache: tuple[str, ...] | None = None
    default_vpc: bool = False
    on_command_line: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)
    role_arn: str | None = None
    protect: bool | None = None


@dataclass(frozen=True)
class Missing:
    """A parameter that has no value yet.

    `source`: PROMPT, DOCKER or DEFAULT_VPC. `registry`: whose credentials; None for the options of
    a single registry.
    """

    parameter: str
    source: str = PROMPT
    registry: RegistrySpec | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a deploy will do.

    `body`: the template. `parameters`: the values to set; the others stay, or are the defaults.
    `declared`: {parameter: whether it has a default}. `masked`: parameters whose present value
    nobody can read. `kept`: parameters whose present value can stay. `stack` and `present_body`:
    the stack and its template as they are now. `new_secrets`: ARNs of secrets of the user's own
    that the stack does not use yet.
    """

    name: str
    body: str
    parameters: Mapping[str, str] = field(repr=False)
    declared: Mapping[str, bool]
    masked: frozenset[str] = frozenset()
    settings: Settings = field(default_factory=Settings)
    missing: tuple[Missing, ...] = ()
    kept: frozenset[str] = frozenset()
    stack: Stack | None = None
    present_body: str = ""
    new_secrets: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    role_arn: str | None = None
    protect: bool | None = None

    def complete(self, values: Mapping[str, str]) -> Plan:
        """Return the plan with values for what was missing."""
        return replace(self, parameters={**self.parameters, **values}, missing=())


def resolve(
    inputs: Inputs,
    stack: Stack | None = None,
    present_body: str = "",
    deployed: Deployed | None = None,
    build: Callable[[Settings], Template] | None = None,
) -> Plan:
    """Return the plan for a stack; `deployed` is what its template `present_body` says.

    `build`: returns the template, if not that of a normal stack. Raises BatchregError for options
    that contradict each other or the stack.
    """
    from batchreg.render import template
    from batchreg.render.text import to_yaml

    settings = replace(deployed.settings if deployed else Settings(), **inputs.settings)
    before = stack.parameters if stack and stack.status not in LOSES_PARAMETERS else {}
    urls = {
        slot: before[f"RegistryUrl{suffix(slot)}"]
        for slot in slots_of(before)
        if not settings.secret_arns
    }
    given = dict(inputs.parameters)
    assigned: dict[int, RegistrySpec] = {}
    if inputs.registries:
        assigned = slots.assign(inputs.registries, urls)
        settings = replace(settings, secret_arns=(), slots=tuple(sorted(assigned)))
        given |= _credentials(inputs, assigned, urls)
    else:
        given = slots.of_one(given, urls)
    addresses = {
        slot: given.get(f"RegistryUrl{suffix(slot)}") or urls.get(slot) or constraints.DOCKER_HUB
        for slot in (() if settings.secret_arns else settings.slots)
    }
    keys = {slot: key_of(url) for slot, url in addresses.items()}
    cached = caching.choose(inputs.cache, settings.cached, keys)
    settings = replace(settings, cached=cached)
    given |= caching.parameters(cached, addresses, inputs.stack_name, {**before, **given})
    built = (build or template.build)(settings)
    declared = {name: hasattr(parameter, "Default") for name, parameter in built.parameters.items()}
    given = _without_unused(inputs, given, declared, settings)
    _check_root_volume(given, before, built)
    sources = _sources(inputs, assigned, urls)
    for name in sources:  # --default-vpc and --from-docker-config override batchreg.yaml
        given.pop(name, None)
    unknown = [name for name, default in declared.items() if not default and name not in before]
    missing = [name for name in unknown if name not in given and name not in sources]
    return Plan(
        name=inputs.stack_name,
        body=to_yaml(built),
        parameters=given,
        declared=declared,
        masked=frozenset(
            name
            for name, parameter in built.parameters.items()
            if getattr(parameter, "NoEcho", False)
        ),
        settings=settings,
        missing=(
            *(Missing(name, registry=_registry_of(name, assigned)) for name in missing),
            *sources.values(),
        ),
        kept=frozenset(before),
        stack=stack,
        present_body=present_body,
        new_secrets=tuple(
            arn
            for arn in settings.secret_arns
            if not deployed or arn not in deployed.settings.secret_arns
        ),
        tags=inputs.tags,
        role_arn=inputs.role_arn,
        protect=inputs.protect,
    )


def _check_root_volume(
    given: Mapping[str, str], before: Mapping[str, str], built: Template
) -> None:
    """Refuse what gp3 does not allow together: by what is given, else present, else the default.

    CloudFormation would accept it, and no instance would start.
    """
    names = ("RootVolumeGiB", "RootVolumeThroughput", "RootVolumeIops")
    if not given.keys() & set(names):
        return
    gib, throughput, iops = (
        int(given.get(name) or before.get(name) or built.parameters[name].Default) for name in names
    )
    least, most = constraints.IOPS_PER_MIBS * throughput, constraints.IOPS_PER_GIB * gib
    if iops < least:
        raise BatchregError(
            f"A root volume with {throughput} MiB/s needs at least {least} IOPS, and would have "
            f"{iops}.",
            f"Give --root-volume-iops {least}, or --root-volume-throughput "
            f"{iops // constraints.IOPS_PER_MIBS} or less.",
        )
    if iops > most:
        raise BatchregError(
            f"A root volume of {gib} GiB can have at most {most} IOPS, and would have {iops}.",
            f"Give --root-volume-iops {most} or less, or --root-volume-gib "
            f"{-(-iops // constraints.IOPS_PER_GIB)}.",
        )


def _credentials(
    inputs: Inputs, assigned: Mapping[int, RegistrySpec], urls: Mapping[int, str]
) -> dict[str, str]:
    """Return the parameters of --registry that are known; what the stack keeps is left out."""
    by_key = {registry.key: registry for registry in inputs.registries}

    def find(spec: RegistrySpec, new: bool) -> Credentials:
        registry = by_key[spec.key]
        if new and spec.source.startswith(ENV) and not registry.password:
            name = spec.source.removeprefix(ENV)
            raise BatchregError(
                f"{host_of(spec.key)}: the variable {name} is not set.", "Set it to the password."
            )
        return Credentials(registry.username, registry.password)

    return slots.parameters(assigned, urls, find)


def _sources(
    inputs: Inputs, assigned: Mapping[int, RegistrySpec], urls: Mapping[int, str]
) -> dict[str, Missing]:
    """Return what Docker's store and the default VPC shall provide, by parameter.

    What the stack has stays, unless --from-docker-config is on the command line: it may come from a
    rotation that Docker's store does not know about.
    """
    found = {}
    for slot, spec in assigned.items():
        if spec.source == DOCKER and (
            slot not in urls or "from_docker_config" in inputs.on_command_line
        ):
            names = ["Password"] if spec.username else ["Username", "Password"]
            for name in (f"{name}{suffix(slot)}" for name in names):
                found[name] = Missing(name, DOCKER, spec)
    for option, name in NETWORK.items() if inputs.default_vpc else ():
        if name not in inputs.parameters or option not in inputs.on_command_line:
            found[name] = Missing(name, DEFAULT_VPC)
    return found


def _registry_of(parameter: str, assigned: Mapping[int, RegistrySpec]) -> RegistrySpec | None:
    for slot, spec in assigned.items():
        if parameter in (f"Username{suffix(slot)}", f"Password{suffix(slot)}"):
            return spec
    return None


def _without_unused(
    inputs: Inputs, given: Mapping[str, str], declared: Mapping[str, bool], settings: Settings
) -> dict[str, str]:
    """Leave out what the template does not have; on the command line it is a mistake."""
    unused = [option for option, name in PARAMETERS.items() if name in given.keys() - declared]
    mistakes = [
        "--password-stdin" if option == "password" else f"--{option.replace('_', '-')}"
        for option in unused
        if option in inputs.on_command_line
    ]
    if mistakes:
        why = "requires --pull-through-cache"
        if not {"--cache-prefix", "--cache-days"} >= set(mistakes):
            why = "cannot be used where ECR pulls all images"
            if settings.secret_arns:
                why = "cannot be used with --secret-arn"
        raise BatchregError(f"{', '.join(mistakes)} {why}.")
    return {name: value for name, value in given.items() if name in declared}
