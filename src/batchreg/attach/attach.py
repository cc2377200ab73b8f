"""Attach credentials to an environment: look, companion stack, update.

Each step looks at what there is, and does what is missing. So running it again continues after an
interruption anywhere, and a second run changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchreg.attach import blue_green, companion, detach, following, look, update
from batchreg.attach.companion import Attachment
from batchreg.attach.environment import (
    Environment,
    Queue,
    UpdatePolicy,
    created_by,
    read,
    read_queue,
)
from batchreg.attach.look import Copied
from batchreg.attach.survey import CHANGED, Clients, Survey
from batchreg.attach.update import TemplateVersion
from batchreg.errors import BatchregError
from batchreg.registry.names import host_of
from batchreg.render.settings import Settings
from batchreg.render.text import read_template
from batchreg.stack import deploy as stack_deploy
from batchreg.stack import plan as stack_plan
from batchreg.stack.plan import Inputs
from batchreg.stack.screen import Ask, Screen
from batchreg.stack.states import Sleep, Stack


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user decides about the environment; None is as it is.

    `image_type`: another one, for the same update. `blue_green`: add a copy of the environment, and
    put that first in the queues. `emit`: only write code, for which no update in place is needed.
    """

    job_timeout_minutes: int | None = None
    terminate_jobs: bool = False
    image_type: str = ""
    blue_green: bool = False
    emit: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What attaching will do. `stack`: the plan for the companion stack."""

    survey: Survey
    attachment: Attachment
    stack: stack_plan.Plan
    policy: UpdatePolicy

    @property
    def copies(self) -> tuple[Copied, ...]:
        return self.attachment.copies

    @property
    def image_type(self) -> str:
        return self.attachment.image_type

    @property
    def name(self) -> str:
        return self.survey.present.name

    @property
    def cache_alone(self) -> bool:
        """Tell whether ECR pulls from all registries, so that the environment stays as it is."""
        return not self.copies

    @property
    def is_attached(self) -> bool:
        """Tell, without asking AWS, whether there is nothing to do."""
        survey, stack = self.survey, self.stack
        if not survey.stack or not stack_deploy.unchanged(stack, survey.stack, survey.body):
            return False
        if self.cache_alone:
            return True
        if self.attachment.green:
            return not queue_requests(survey.queues, survey.present, _green_arn(survey.stack))
        return survey.present.status == "VALID" and _is_applied(
            self, survey.stack, survey.present.specification
        )

    @property
    def keeps_instances(self) -> bool:
        """Tell whether at most the credentials change, so that no instance is replaced."""
        survey, stack = self.survey, self.stack
        if not survey.stack or self.cache_alone or self.attachment.green:
            return False
        present = survey.stack.parameters
        return (
            survey.body == stack.body
            and all(
                name in stack.masked or present.get(name) == value
                for name, value in stack.parameters.items()
            )
            and survey.present.status == "VALID"
            and _is_applied(self, survey.stack, survey.present.specification)
        )


def attachment(survey: Survey, choices: Choices, settings: Settings) -> Attachment:
    """Return what to attach. Raises BatchregError with everything that stands in the way."""
    recorded = survey.recorded
    cache_alone = not settings.secret_arns and not settings.on_instances
    green = choices.blue_green or bool(recorded and recorded.blue_green)
    if cache_alone or (settings.cached and choices.emit):
        _refuse_beside_cache(choices, recorded)
    refused = tuple(
        look.refusals(survey.present, updates=not (green or choices.emit or cache_alone))
    )
    copies: tuple[Copied, ...] = ()
    if not refused and not cache_alone:
        copies, refused = look.judge(survey.bases)
    if refused:
        raise BatchregError(
            " ".join(refusal.fact for refusal in refused),
            " ".join(dict.fromkeys(refusal.step for refusal in refused)),
            next((refusal.command for refusal in refused if refusal.command), ()),
        )
    if green:  # raises where a queue has no room
        queue_requests(survey.queues, survey.present, _green_arn(survey.stack))
    image_type = choices.image_type or (recorded.image_type if recorded else "")
    if cache_alone:  # the environment has its own again, and a later attach asks for another one
        image_type = ""
    before = recorded.queues if recorded and recorded.blue_green else {}
    return Attachment(
        environment=survey.original,
        role=survey.role,
        queues=tuple(
            replace(queue, environments=before.get(queue.arn, queue.environments))
            for queue in survey.queues
        ),
        copies=copies,
        image_type=image_type,
        green=blue_green.copy(survey.answer, image_type=image_type) if green else None,
        slots=settings.slots,
        secret_arns=settings.secret_arns,
        cached=settings.cached,
    )


def _refuse_beside_cache(choices: Choices, recorded: companion.Recorded | None) -> None:
    """Refuse what is about the instances: they stay as they are."""
    if recorded and recorded.blue_green:
        raise BatchregError(
            f"{recorded.environment} is attached by a copy of it, which the cache does not need.",
            "Detach it first:",
            ("detach", recorded.environment),
        )
    options = {
        "--blue-green": choices.blue_green,
        "--image-type": choices.image_type,
        "--terminate-jobs": choices.terminate_jobs and not (recorded and recorded.updates),
    }
    if mistakes := [name for name, given in options.items() if given]:
        raise BatchregError(
            f"{', '.join(mistakes)} has no effect: ECR pulls the images, and no instance changes.",
            "Leave it out.",
        )
    if choices.emit:
        raise BatchregError(
            "--emit writes code for instances, which a pull-through cache does not need.",
            "Take its resources from:",
            ("render", "--pull-through-cache"),
        )


def plan(survey: Survey, inputs: Inputs, choices: Choices) -> Plan:
    """Return what attaching will do; a pure function of what there is and what the user gave."""

    def build(settings: Settings) -> Any:
        return companion.build(attachment(survey, choices, settings))

    present = survey.original.update_policy
    resolved = stack_plan.resolve(
        inputs, survey.stack, survey.body, read_template(survey.body), build
    )
    return Plan(
        survey=survey,
        attachment=attachment(survey, choices, resolved.settings),
        stack=resolved,
        policy=UpdatePolicy(
            terminate_jobs=choices.terminate_jobs or present.terminate_jobs,
            job_timeout_minutes=choices.job_timeout_minutes or present.job_timeout_minutes,
        ),
    )


def lines(plan: Plan) -> Iterator[str]:
    """Yield what people should know before they say yes."""
    survey, environment = plan.survey, plan.survey.original
    creator = created_by(environment)
    queues = ", ".join(queue.name for queue in survey.queues) or "none"
    yield f"Compute environment: {plan.name}, {environment.kind}, created by {creator.name}"
    yield f"Job queues: {queues}"
    if survey.uses == CHANGED:
        yield (
            f"Somebody has changed the launch template of {plan.name} since it was attached. What "
            "it has now is taken for the original."
        )
    if plan.keeps_instances:
        yield (
            f"{plan.name} itself does not change, and no instance is replaced: instances read the "
            "credentials again by themselves."
        )
        return
    for copied in plan.copies:
        reference = copied.base.reference
        targets = f" (for {', '.join(reference.targets)})" if reference.targets else ""
        today = f", which is {copied.base.version}" if reference and reference.moves else ""
        what = f"a copy of {reference}{today}" if reference else "a new one"
        yield f"Launch template{targets}: {what}, with the registry credentials"
    yield from _permissions(plan)
    if plan.cache_alone:
        if survey.recorded and survey.recorded.updates:
            yield f"Launch template: {plan.name} gets back its own; then"
            yield _jobs(plan)
        else:
            yield f"{plan.name} itself does not change, and no instance is replaced."
        return
    yield from look.notes(plan.copies)
    old_lines = look.amazon_linux_2_lines(plan.copies)
    if plan.image_type and survey.present.amazon_linux_2:
        yield f"Image type: changes to {plan.image_type}"
        for line in old_lines:
            yield f"This may fail on Amazon Linux 2023: {line}"
    elif survey.present.amazon_linux_2:
        yield (
            "Its instances run Amazon Linux 2. Where they have no python3, they continue without "
            "the credentials. To change that: --image-type ECS_AL2023"
        )
    if environment.state == "DISABLED":
        yield f"{plan.name} is DISABLED: its jobs wait until somebody enables it."
    if plan.attachment.green:
        yield from plan.attachment.green.notes
        yield (
            f"A copy of {plan.name} becomes the first environment in its queues. {plan.name} stays "
            "behind it, without credentials: where the copy is full, private images fail to pull."
        )
    else:
        yield _jobs(plan)
    if creator.consequence:
        yield f"{creator.name}: {creator.consequence}"


def _permissions(plan: Plan) -> Iterator[str]:
    """Yield what the role of the instances may do afterwards, and which images ECR pulls."""
    attachment, role = plan.attachment, plan.survey.role.name
    if attachment.secret_arns:
        yield f"Instance role: {role} gets an inline policy that lets it read your secrets"
    elif attachment.on_instances:
        yield f"Instance role: {role} may read the secret through the secret's own policy"
    if attachment.cached:
        hosts = ", ".join(host_of(key) for _, key in attachment.cached)
        yield f"Instance role: {role} gets an inline policy that lets it pull through ECR's cache"
        yield f"Images of {hosts}: ECR pulls them, by other names"


def _jobs(plan: Plan) -> str:
    new = "New instances replace the running ones"
    if plan.policy.terminate_jobs:
        return f"{new}: {plan.survey.running} running jobs are terminated at once."
    jobs = (
        f": {plan.survey.running} running jobs"
        if plan.survey.running
        else ". No job runs now; jobs that start meanwhile"
    )
    return (
        f"{new}{jobs} may continue for {plan.policy.job_timeout_minutes} minutes, and are then "
        "terminated."
    )


def attach(
    clients: Clients,
    plan: Plan,
    screen: Screen,
    ask: Ask,
    *,
    wait: bool = True,
    sleep: Sleep = time.sleep,
) -> Stack:
    """Do what the plan says and return the companion stack.

    Raises BatchregError if the user says no, if the environment has changed since the survey, or if
    the update ends badly.
    """
    if not plan.is_attached and not ask(f"Attach registry credentials to {plan.name}?"):
        raise BatchregError(f"No changes were made to {plan.name}.")
    batch = clients("batch")
    if plan.cache_alone:
        _give_back(batch, plan, screen, sleep)
    try:
        stack = stack_deploy.deploy(
            clients("cloudformation"), plan.stack, screen, lambda question: True, sleep=sleep
        )
    except BatchregError:
        if plan.cache_alone and plan.survey.recorded and plan.survey.recorded.updates:
            again = screen.command("attach", plan.name, "--pull-through-cache", "none")
            screen.note(
                f"{plan.name} has its own launch template again, and new instances get no registry "
                f"credentials. To give them back: {again}"
            )
        raise
    assert stack  # it is no dry run
    if plan.cache_alone:
        screen.note(f"ECR pulls the images of {plan.name}.")
        return stack
    if plan.attachment.green:
        _put_first(batch, plan, stack, screen)
        return stack
    present = read(following.until_settled(batch, plan.survey.present.arn, screen, sleep=sleep))
    if _is_applied(plan, stack, present.specification):
        screen.note(f"{plan.name} has the registry credentials.")
        return stack
    if not update.same_templates(present.specification, plan.survey.present.specification):
        raise BatchregError(
            f"The launch template of {plan.name} was changed while batchreg worked.",
            "Run the same command again: it starts from what is there now.",
        )
    request = update.attach_request(
        plan.survey.original, _versions(plan, stack), plan.policy, image_type=plan.image_type
    )
    with following.explaining_interrupt(plan.name):
        batch.update_compute_environment(**request)
        screen.note(f"Updating {plan.name}: new instances get the credentials.")
        if wait:
            following.until_valid(batch, present.arn, screen, sleep=sleep)
            screen.note(f"{plan.name} has the registry credentials.")
    return stack


def _give_back(batch: Any, plan: Plan, screen: Screen, sleep: Sleep) -> None:
    """Let the environment use its own launch template again; in the user's time for its jobs."""
    survey = plan.survey
    if not survey.stack or not survey.recorded or not survey.recorded.updates:
        return
    back = detach.plan(
        survey.stack,
        survey.recorded,
        survey.present,
        job_timeout_minutes=plan.policy.job_timeout_minutes,
        terminate_jobs=plan.policy.terminate_jobs,
    )
    detach.give_back(batch, back, screen, sleep)


def queue_requests(
    queues: Sequence[Queue], blue: Environment, green_arn: str
) -> list[dict[str, Any]]:
    """Return UpdateJobQueue's parameters that put a copy of an environment before the original.

    An INVALID original is left out: no queue takes it. Raises BatchregError for a queue that has no
    room; three environments are the limit.
    """
    requests = []
    for queue in queues:
        others = [
            each
            for each in queue.environments
            if each != green_arn
            and not (blue.status == "INVALID" and each in (blue.arn, blue.name))
        ]
        if len(others) > 2:
            raise BatchregError(
                f"The job queue {queue.name} has three compute environments, which is the limit.",
                "Take one of them out.",
            )
        wanted = (green_arn, *others)
        if wanted != queue.environments:
            requests.append(update.queue_request(queue.arn, wanted))
    return requests


def _put_first(batch: Any, plan: Plan, stack: Stack, screen: Screen) -> None:
    """Let the queues use the copy of the environment, whatever is in them by now."""
    pages = batch.get_paginator("describe_job_queues").paginate()
    answers = [queue for page in pages for queue in page["jobQueues"]]
    arns = {queue.arn for queue in plan.survey.queues}
    now = [queue for queue in map(read_queue, answers) if queue.arn in arns]
    for request in queue_requests(now, plan.survey.present, _green_arn(stack)):
        batch.update_job_queue(**request)
        name = request["jobQueue"].rpartition("/")[2]
        screen.note(f"The job queue {name} uses the copy of {plan.name} first.")
    screen.note(f"The copy of {plan.name} has the registry credentials.")


def _green_arn(stack: Stack | None) -> str:
    return stack.outputs.get("ComputeEnvironmentArn", "") if stack else ""


def _versions(plan: Plan, stack: Stack) -> Sequence[TemplateVersion]:
    return [
        TemplateVersion(stack.outputs[f"{name}Id"], stack.outputs[f"{name}Version"])
        for name in companion.places(plan.copies)
    ]


def _is_applied(plan: Plan, stack: Stack, specification: Any) -> bool:
    """Tell whether the environment has what the companion stack offers."""
    names = companion.places(plan.copies)
    if any(f"{name}Id" not in stack.outputs for name in names):
        return False
    request = update.attach_request(plan.survey.original, _versions(plan, stack), plan.policy)
    return update.same_templates(specification, request["computeResources"]["launchTemplate"])
