"""`init`: ask what deploy or attach would ask, and write it to batchreg.yaml."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import click

from batchreg import aws
from batchreg.aws import Session
from batchreg.cli import inputs, prompts, runner, settings_file, target
from batchreg.cli.console import TextScreen
from batchreg.cli.grammar import Command
from batchreg.cli.options import CONFIG_FILE
from batchreg.cli.output import STDOUT, check_writable
from batchreg.errors import BatchregError
from batchreg.registry.logins import DOCKER, ENV, PROMPT, RegistrySpec
from batchreg.registry.names import address_of, host_of, key_of
from batchreg.stack.plan import DEFAULT_VPC, NETWORK, Plan, resolve

T = TypeVar("T")
SOURCES = f"{PROMPT}, {DOCKER} or {ENV}NAME"
IDS = {"SubnetIDs": ("Subnets", "subnet"), "SecurityGroupIDs": ("Security groups", "sg")}


def run(
    *,
    attach: str | None,
    output: str,
    yes: bool,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    **options: Any,
) -> int:
    """Write the settings and name the next command; `options` are for `inputs.gather`."""
    context = click.get_current_context()
    assert isinstance(context.command, Command)
    command = Init(
        attach=attach,
        output=output,
        yes=yes,
        place={"profile": profile, "region": region, "endpoint_url": endpoint_url},
        options=options,
        settings=settings_file.given(context),
        command=context.command,
        screen=TextScreen(),
    )
    return runner.run(command, command.screen)


@dataclass(frozen=True)
class Answers:
    """What the file will say: {key: value}. `attach`: the environment or queue, "" for a stack.

    `plan`: what a deploy with the settings would do, and still lack.
    """

    settings: Mapping[str, Any]
    plan: Plan
    attach: str = ""


class Environment(NamedTuple):
    """A compute environment to choose from."""

    id: str
    queues: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Init:
    """The stages of `init`. `settings`: what was given, by key of batchreg.yaml."""

    attach: str | None
    output: str
    yes: bool
    place: dict[str, Any] = field(repr=False)
    options: dict[str, Any] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    command: Command
    screen: TextScreen

    def gather(self) -> Answers:
        target.check_name(self.options["stack_name"])
        check_writable(self.output)
        given = inputs.gather(password_stdin=False, **self.options)
        # A variable for a password has to be set when the file is used, not when it is written.
        registries = tuple(replace(one, password=one.password or "-") for one in given.registries)
        if self.attach and (unread := self._only_deploy_reads()):
            raise click.UsageError(f"--attach cannot be used with {', '.join(unread)}.")
        return Answers(
            self.settings, resolve(replace(given, registries=registries)), self.attach or ""
        )

    def resolve(self, answers: Answers) -> Answers:
        return answers  # nothing exists yet; AWS only helps to choose

    def ask(self, answers: Answers) -> Answers:
        if not prompts.interactive():
            self._require_complete(answers)
        elif self._exists() and not prompts.asker(self.yes)(f"Replace {self.output}?"):
            raise BatchregError(
                f"No changes were made to {self.output}.", "To write another file, give --output."
            )
        settings, attach = dict(answers.settings), answers.attach
        if prompts.interactive():
            if not attach and not self._only_deploy_reads() and self._is_for_existing():
                attach = "?"
            settings |= self._region(settings)
        session = target.session(**{**self.place, "region": settings.get("region")})
        if attach == "?":
            attach = self._environment(session)
        if prompts.interactive() and not attach and "stack_name" not in settings:
            settings["stack_name"] = _prompt("Name of the stack", _stack_name, default="batchreg")
        if prompts.interactive():
            settings = _credentials(settings, answers.plan)
        if not attach:
            found = self._network(answers.plan, session)
            settings |= {
                key: found[name].split(",") for key, name in NETWORK.items() if name in found
            }
        return Answers(settings, answers.plan, attach)

    def act(self, answers: Answers) -> int:
        wanted = self._sibling("attach" if answers.attach else "deploy")
        settings_file.save(self.output, wanted, answers.settings)
        words = ["attach", answers.attach] if answers.attach else ["deploy"]
        if self.output in STDOUT or os.path.realpath(self.output) != os.path.realpath(CONFIG_FILE):
            words += ["--config", CONFIG_FILE if self.output in STDOUT else self.output]
        if self.place["endpoint_url"] and "endpoint_url" in inputs.on_command_line():
            words += ["--endpoint-url", self.place["endpoint_url"]]
        written = "" if self.output in STDOUT else f"Settings written to {self.output}. "
        self.screen.note(f"{written}Next: {shlex.join(['batchreg', *words])}")
        return 0

    def _sibling(self, name: str) -> Command:
        found = self.command.group.commands[name]
        assert isinstance(found, Command)
        return found

    def _only_deploy_reads(self) -> list[str]:
        """Return the options on the command line that mean nothing to attach."""
        known = {each.key for each in self._sibling("attach").declared}
        typed = inputs.on_command_line()
        return [
            f"--{each.name}"
            for each in self.command.declared
            if each.parameter in typed
            and (each.key or each.name == "default-vpc")
            and each.key not in known - {""}
        ]

    def _exists(self) -> bool:
        return self.output not in STDOUT and os.path.isfile(self.output)

    def _require_complete(self, answers: Answers) -> None:
        """Raise click.UsageError that names everything that is missing, except for passwords."""
        found = []
        for missing in answers.plan.missing:
            if missing.source != PROMPT or "Password" in missing.parameter:
                continue
            if missing.registry:
                found.append(f"the user name of {host_of(missing.registry.key)} in --registry")
            elif not (answers.attach and missing.parameter in IDS):
                found.append(prompts.SOURCES[missing.parameter])
        if self._exists() and not self.yes:
            found.append(f"--yes to replace {self.output}")
        if found:
            raise click.UsageError(f"Missing {', '.join(dict.fromkeys(found))}.")

    def _is_for_existing(self) -> bool:
        self.screen.note(
            "Where should jobs run?\n"
            "  1  in a new compute environment and job queue (batchreg deploy)\n"
            "  2  in a compute environment that you already have (batchreg attach)"
        )
        choice = _prompt("Number", click.Choice(["1", "2"]), default="1", show_choices=False)
        return bool(choice == "2")

    def _region(self, settings: Mapping[str, Any]) -> dict[str, str]:
        if "region" in settings:
            return {}
        try:
            present = target.session(**self.place).client("batch").meta.region_name
        except BatchregError:
            present = None
        label = "AWS Region" if present else "AWS Region, such as us-east-1"
        return {"region": _prompt(label, _word, default=present)}

    def _environment(self, session: Session) -> str:
        """Return the environment to attach: chosen from those that AWS lists, or any name."""
        found = self._looked_up("compute environments", lambda: _environments(session))
        if not found:
            return str(_prompt("Name of the compute environment or job queue", _word))
        self.screen.table(
            ["", "Compute environment", "Job queues", "State"],
            [[str(number), *one] for number, one in enumerate(found, 1)],
        )
        (chosen,) = prompts.choose("Compute environment", found, single=True)
        return str(chosen.id)

    def _network(self, plan: Plan, session: Session) -> dict[str, str]:
        missing = [each for each in plan.missing if each.parameter in IDS]
        if not missing:
            return {}
        if any(each.source == DEFAULT_VPC for each in missing):
            return prompts.network_values(plan, session)
        found = self._looked_up("the network", lambda: prompts.network_values(plan, session)) or {}
        for each in missing:
            if each.parameter not in found:
                what, kind = IDS[each.parameter]
                found[each.parameter] = _prompt(
                    f"{what} (ids, such as {kind}-0a1b2c3d)", _ids(kind)
                )
        return found

    def _looked_up(self, what: str, look: Callable[[], T]) -> T | None:
        """Return what AWS answers, or None after a note that says why it could not be looked up."""
        try:
            return look()
        except BatchregError as error:
            line: str | None = str(error)
        except Exception as error:
            line = aws.explain(error)
            if line is None:
                raise
        self.screen.note(f"Could not look up {what}: {line}")
        return None


def _environments(session: Session) -> list[Environment]:
    """Return the compute environments that batchreg did not create, with their queues."""
    batch = session.client("batch")
    queues = [
        queue
        for page in batch.get_paginator("describe_job_queues").paginate()
        for queue in page["jobQueues"]
    ]
    return [
        Environment(
            one["computeEnvironmentName"],
            ", ".join(
                queue["jobQueueName"]
                for queue in queues
                for order in queue["computeEnvironmentOrder"]
                if order["computeEnvironment"] == one["computeEnvironmentArn"]
            ),
            one.get("status", ""),
        )
        for page in batch.get_paginator("describe_compute_environments").paginate()
        for one in page["computeEnvironments"]
    ]


def _credentials(settings: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the settings with a registry, a user name and where its password comes from."""
    found = dict(settings)
    if "registries" in found:
        for missing in plan.missing:
            if missing.registry and missing.parameter.startswith("Username"):
                name = prompts.ask_credential(missing)
                found["registries"] = tuple(
                    f"{one},username={name}" if _is_for(one, missing.registry) else one
                    for one in found["registries"]
                )
        return found
    if "secret_arn" in found:
        return found
    if "registry_url" not in found:
        found["registry_url"] = _prompt("Registry", _registry, default="docker-hub")
    for missing in plan.missing:
        if missing.parameter == "Username":
            found["username"] = prompts.ask_credential(missing)

    def entry(source: str) -> str:
        text = f"{found['registry_url']},username={found['username']},password={source.strip()}"
        try:
            RegistrySpec.parse(text)
        except BatchregError as error:  # not quoted: it may be the password
            raise click.UsageError(f"write {SOURCES}, with the name of a variable") from error
        return text

    text = _prompt(f"Password from: {SOURCES}", entry, default=PROMPT)
    if not text.endswith(f"password={PROMPT}"):
        del found["registry_url"], found["username"]
        found["registries"] = (text,)
    return found


def _is_for(entry: str, registry: RegistrySpec) -> bool:
    spec = RegistrySpec.parse(entry)
    return spec.key == registry.key and not spec.username


def _prompt(label: str, check: Any, **options: Any) -> Any:
    """Ask for a value; again after one that `check`, a function or a type, refuses."""
    kind = {"type": check} if isinstance(check, click.ParamType) else {"value_proc": check}
    with prompts.line_ended():
        return click.prompt(label, err=True, **kind, **options)


def _word(text: str) -> str:
    if not re.fullmatch(r"\S+", text.strip()):
        raise click.UsageError("write one word")
    return text.strip()


def _stack_name(text: str) -> str:
    target.check_name(text.strip())
    return text.strip()


def _registry(text: str) -> str:
    try:
        key_of(address_of(text))
    except BatchregError as error:
        raise click.UsageError(str(error)) from None
    return address_of(text)


def _ids(kind: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        ids = re.split(r"[\s,]+", text.strip(" ,"))
        if not all(re.fullmatch(rf"{kind}-[0-9a-f]+", one) for one in ids):
            raise click.UsageError(f"write ids that start with {kind}-")
        return ",".join(ids)

    return read
