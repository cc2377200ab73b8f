"""`check`, and what `deploy --check` does: ask registries whether credentials pull images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click

from batchreg import registry_login
from batchreg.aws import Session
from batchreg.cache import names
from batchreg.cache import stack as cache_of
from batchreg.cli import inputs, prompts, runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.output import report
from batchreg.errors import BatchregError
from batchreg.registry import check as registry
from batchreg.registry.check import Verdict
from batchreg.registry.images import Image, architectures, parse
from batchreg.registry.logins import Credentials
from batchreg.registry.names import host_of
from batchreg.render.settings import suffix
from batchreg.stack import registries
from batchreg.stack.plan import Plan
from batchreg.stack.registries import Problem, StackRegistry
from batchreg.stack.states import Stack

GIVEN, OF_STACK = "the given", "the stack's"


@dataclass(frozen=True)
class Available:
    """The credentials that there are: {the ECS agent's key for a registry: credentials}.

    `problems`: one for each secret that gives none. `whose`: GIVEN or OF_STACK.
    """

    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    whose: str = ""

    def of(self, image: Image) -> Credentials | None:
        return self.credentials.get(registry_login.HUB if image.on_hub else image.registry)


@dataclass(frozen=True)
class Question:
    """Which images to check for which architectures, with which credentials.

    `stack_name`: whose credentials and architectures; None for those given, or for none. `cached`:
    {an image's name: the name by which ECR pulls it}, for those that ECR pulls. `incomplete`: the
    user name whose password is still missing, and the key of its registry.
    """

    images: tuple[Image, ...]
    stack_name: str | None = None
    architectures: tuple[str, ...] = ("amd64",)
    available: Available = field(default_factory=Available)
    cached: Mapping[str, str] = field(default_factory=dict)
    incomplete: tuple[str, str] | None = field(default=None, repr=False)


def run(
    *,
    image: tuple[str, ...],
    architecture: str | None,
    json_output: bool,
    stack_name: str | None,
    registry_url: str | None,
    username: str | None,
    password_stdin: bool,
    **place: Any,
) -> int:
    """Print a verdict per image; the exit status is 0 if all can be pulled.

    `place` is for `target.session`.
    """
    show = screen(json_output)
    given = {"registry_url": registry_url, "username": username}
    command = Check(
        image=image,
        architecture=architecture,
        stack_name=stack_name,
        given=given,
        password_stdin=password_stdin,
        screen=show,
        place=place,
    )
    return runner.run(command, show, ok=False)


@dataclass(frozen=True, kw_only=True)
class Check:
    """The stages of `check`. `given`: the options registry_url and username."""

    image: tuple[str, ...]
    architecture: str | None
    stack_name: str | None
    given: dict[str, str | None]
    password_stdin: bool
    screen: AnyScreen
    place: dict[str, Any]

    def gather(self) -> Question:
        typed = inputs.on_command_line()
        if "stack_name" in typed and typed & {"password_stdin", "username", "registry_url"}:
            raise click.UsageError(
                "--stack-name uses the stack's own credentials: leave out either it or --username, "
                "--registry-url and --password-stdin."
            )
        question = Question(tuple(map(parse, dict.fromkeys(self.image))))
        if self.stack_name and ("stack_name" in typed or not self.given["username"]):
            return replace(question, stack_name=self.stack_name)
        if not self.given["username"]:
            if typed & {"password_stdin", "registry_url"}:
                raise click.UsageError("Missing --username.")
            return question
        password = inputs.password(self.password_stdin)
        values = inputs.parameters({**self.given, "password": password})
        key = registry_login.registry_key(values.get("RegistryUrl", registry_login.HUB))
        if "Password" not in values:
            return replace(question, incomplete=(values["Username"], key))
        found = {key: Credentials(values["Username"], values["Password"])}
        return replace(question, available=Available(found, (), GIVEN))

    def resolve(self, question: Question) -> Question:
        if question.stack_name:
            found = target.find(question.stack_name, **self.place)
            stack = found.existing()
            types = stack.parameters.get("InstanceTypes", "").split(",")
            question = replace(
                _at_the_registries(question, stack),
                available=deployed(found.session, stack),
                architectures=architectures(types),
            )
        if self.architecture:
            return replace(question, architectures=(self.architecture,))
        return question

    def ask(self, question: Question) -> Question:
        if not question.incomplete:
            return question
        username, key = question.incomplete
        password = prompts.ask_password("Password or access token")
        found = {key: Credentials(username, password)}
        return replace(question, available=Available(found, (), GIVEN), incomplete=None)

    def act(self, question: Question) -> int:
        verdicts = _verdicts(question)
        for verdict in verdicts:
            cached = question.cached.get(verdict.image, "")
            fields = _fields(verdict) | ({"cached": cached} if cached else {})
            if verdict.ok:
                name = f", pulled through ECR as {cached}" if cached else ""
                text = f"ok  {verdict.image}  {verdict.text}{name}\n"
                self.screen.product("verdict", text, **fields)
                continue
            name = f" (in ECR: {cached})" if cached else ""
            self.screen.emit("verdict", **fields)
            self.screen.problem(f"{verdict.image}{name}: {verdict.text}")
        for problem in question.available.problems:
            self.screen.note(str(problem))
        ok = all(verdict.ok for verdict in verdicts) and not question.available.problems
        self.screen.emit("result", ok=ok)
        return 0 if ok else 1


def _at_the_registries(question: Question, stack: Stack) -> Question:
    """Return the question with the images as their own registries call them, which ECR will ask."""
    cache = cache_of.of(stack)
    if not cache:
        return question
    images = tuple(
        parse(names.upstream_name(image.name, cache) or image.name) for image in question.images
    )
    named = ((image.name, names.cached_name(image.name, cache)) for image in images)
    return replace(question, images=images, cached={image: name for image, name in named if name})


def before_deploy(wanted: Sequence[str], plan: Plan, session: Session, screen: AnyScreen) -> None:
    """Check images with the credentials that the stack will have; BatchregError if one fails."""
    images = tuple(map(parse, dict.fromkeys(wanted)))
    available = after(plan, session)
    for problem in available.problems:
        raise BatchregError(f"{problem.fact} No changes were made.", problem.step, problem.command)
    present = plan.stack.parameters if plan.stack and plan.kept else {}
    types = plan.parameters.get("InstanceTypes") or present.get("InstanceTypes") or ""
    failed = []
    for verdict in _verdicts(Question(images, None, architectures(types.split(",")), available)):
        screen.emit("verdict", **_fields(verdict))
        if not verdict.ok:
            failed.append(f"{verdict.image}: {verdict.text}")
        else:
            screen.tell(f"ok  {verdict.image}  {verdict.text}")
    for line in failed[:-1]:
        report(line)
    if failed:
        raise BatchregError(f"{failed[-1]} No changes were made.")


def deployed(session: Session, stack: Stack) -> Available:
    """Return the credentials in a stack's secrets; BatchregError if there are none."""
    found = registries.find(session.client("cloudformation"), stack)
    available = _read(session.client("secretsmanager"), found)
    if not available.credentials:
        for problem in available.problems:
            raise problem.error
        raise BatchregError(
            f"{stack.name} has no registry credentials.", "Give them with --username."
        )
    return available


def _read(manager: Any, found: Sequence[StackRegistry]) -> Available:
    """Read secrets as an instance does: a broken one does not affect the others."""
    credentials: dict[str, Credentials] = {}
    problems = []
    for one in found:
        stored = registries.read(manager, one)
        if isinstance(stored, Problem):
            problems.append(stored)
        else:
            credentials.setdefault(stored.key, stored.credentials)
    return Available(credentials, problems, OF_STACK)


def after(plan: Plan, session: Session) -> Available:
    """Return the credentials that the stack has after the deploy."""
    if plan.settings.secret_arns:
        found = [StackRegistry(None, arn) for arn in plan.settings.secret_arns]
        return _read(session.client("secretsmanager"), found)
    given, slots = plan.parameters, [suffix(slot) for slot in plan.settings.slots]
    present = plan.stack if plan.kept else None
    complete = {n for n in slots if {f"Username{n}", f"Password{n}"} <= given.keys()}
    lacking = []
    if present and complete < set(slots):
        known = registries.find(session.client("cloudformation"), present)
        lacking = [one for one in known if suffix(one.slot or 0) not in complete]
    stored = _read(session.client("secretsmanager"), lacking) if lacking else Available()
    before = present.parameters if present else {}
    credentials = {}
    for n in slots:
        old_key = registry_login.registry_key(before.get(f"RegistryUrl{n}") or registry_login.HUB)
        key = registry_login.registry_key(given.get(f"RegistryUrl{n}") or old_key)
        old = stored.credentials.get(old_key) or Credentials()
        credentials[key] = Credentials(
            given.get(f"Username{n}") or old.username, given.get(f"Password{n}") or old.password
        )
    return Available(credentials, stored.problems, OF_STACK)


def _verdicts(question: Question) -> list[Verdict]:
    """Check all images in parallel; the verdicts come in the order of the images."""
    waits = [
        registry.start(image, question.available.of(image), architectures=question.architectures)
        for image in question.images
    ]
    return [_explained(wait(), question.available) for wait in waits]


def _explained(verdict: Verdict, available: Available) -> Verdict:
    """Say which registry the credentials are for, if the image is in another one."""
    if verdict.cause != "login-needed" or not available.credentials:
        return verdict
    hosts = ", ".join(map(host_of, available.credentials))
    step = ": --registry-url changes that" if available.whose == GIVEN else ""
    here = f"Here, {available.whose} credentials are for {hosts}{step}."
    return replace(verdict, step=f"{verdict.step} {here}")


def _fields(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as `--json` prints it."""
    return {**vars(verdict), "text": verdict.text, "details": dict(verdict.details)}
