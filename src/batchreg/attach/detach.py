"""Give an environment back what it had before, then delete the companion stack.

The environment comes first: at no moment does it use a launch template that does not exist.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchreg.attach import environment, following, survey, update
from batchreg.attach.companion import Recorded
from batchreg.attach.environment import Environment, Queue, UpdatePolicy
from batchreg.attach.survey import Clients
from batchreg.errors import BatchregError
from batchreg.stack import destroy as stack_destroy
from batchreg.stack.screen import Ask, Screen
from batchreg.stack.states import Sleep, Stack


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What detaching will do.

    `present`: the environment, None if it is gone. `restore`: the launch template specification to
    give back, empty for none at all; None where the environment does not use the companion's.
    `foreign`: somebody has changed the launch template since it was attached. `queues`: those that
    use the companion's copy of the environment, as they are now.
    """

    stack: Stack
    recorded: Recorded
    present: Environment | None
    restore: Mapping[str, Any] | None = None
    foreign: bool = False
    queues: tuple[Queue, ...] = ()
    policy: UpdatePolicy

    @property
    def name(self) -> str:
        return self.recorded.environment


def plan(
    stack: Stack,
    recorded: Recorded,
    present: Environment | None,
    queues: Sequence[Queue] = (),
    *,
    job_timeout_minutes: int | None = None,
    terminate_jobs: bool = False,
) -> Plan:
    """Return what detaching will do; a pure function.

    Raises BatchregError where it cannot be known what an environment had before.
    """
    policy = UpdatePolicy(
        terminate_jobs=terminate_jobs or recorded.update_policy.terminate_jobs,
        job_timeout_minutes=job_timeout_minutes or recorded.update_policy.job_timeout_minutes,
    )
    if recorded.blue_green:
        green = stack.outputs.get("ComputeEnvironmentArn", "")
        using = tuple(queue for queue in queues if green in queue.environments)
        return Plan(stack=stack, recorded=recorded, present=present, queues=using, policy=policy)
    ours = survey.ids_of(stack)
    used = [each.id for each in (present.template, *present.overrides)] if present else []
    if not present or not ours & set(used):
        foreign = present is not None and not update.same_templates(
            present.specification, recorded.specification
        )
        return Plan(stack=stack, recorded=recorded, present=present, foreign=foreign, policy=policy)
    exact = _has_what_attach_gave(stack, recorded, present)
    restore = recorded.specification or {}
    return Plan(
        stack=stack,
        recorded=recorded,
        present=present,
        restore=restore if exact else _merged(stack, recorded, present),
        foreign=not exact,
        policy=policy,
    )


def lines(plan: Plan) -> Iterator[str]:
    """Yield what people should know before they say yes."""
    for request in queue_requests(plan):
        order = [each["computeEnvironment"] for each in request["computeEnvironmentOrder"]]
        names = ", ".join(each.rpartition("/")[2] for each in order)
        yield f"Job queue: {request['jobQueue'].rpartition('/')[2]} gets back {names}"
    if plan.recorded.blue_green:
        yield f"The copy of {plan.name} is deleted; jobs that run there are terminated."
    elif not plan.present:
        yield f"The compute environment {plan.name} does not exist any more."
    elif plan.recorded.cache_alone:
        yield (
            f"{plan.name} stays as it is; ECR's rules, their secrets and the permissions are deleted. "
            "What ECR has cached stays there until you delete it."
        )
    elif plan.restore is None and plan.foreign:
        yield (
            f"Somebody has changed the launch template of {plan.name} since it was attached. It "
            "keeps what it has now."
        )
    elif plan.restore is None:
        yield f"{plan.name} has its own launch template already."
    else:
        before = environment.reference(plan.restore)
        yield f"Compute environment: {plan.name} " + (
            f"gets back {before}" if plan.restore else "has no launch template then, as before"
        )
        if plan.foreign:
            yield (
                f"Somebody has changed the launch templates of {plan.name} since it was attached: "
                "only batchreg's are replaced, by what each of them was copied from."
            )
        limit = plan.policy.job_timeout_minutes
        yield "New instances replace the running ones: " + (
            "running jobs are terminated at once."
            if plan.policy.terminate_jobs
            else f"running jobs may continue for {limit} minutes, and are then terminated."
        )


def detach(
    clients: Clients,
    plan: Plan,
    screen: Screen,
    ask: Ask,
    *,
    role_arn: str | None = None,
    wait: bool = True,
    sleep: Sleep = time.sleep,
) -> None:
    """Do what the plan says. Raises BatchregError if the user says no or an update ends badly."""
    for line in lines(plan):
        screen.note(line)
    if not ask(f"Detach {plan.name}, and delete the stack {plan.stack.name} with its secrets?"):
        raise BatchregError(f"No changes were made to {plan.name}.")
    batch = clients("batch")
    for request in queue_requests(plan):
        batch.update_job_queue(**request)
    if plan.present and not plan.recorded.blue_green:
        give_back(batch, plan, screen, sleep)
    stack_destroy.destroy(
        clients("cloudformation"),
        batch,
        plan.stack,
        screen,
        lambda question: True,
        keep_jobs=True,
        role_arn=role_arn,
        wait=wait,
        sleep=sleep,
    )


def queue_requests(plan: Plan) -> list[dict[str, Any]]:
    """Return UpdateJobQueue's parameters that take the copy of an environment out of the queues.

    A queue that nobody has changed since gets back what it had. Raises BatchregError for a queue
    that would have no environment left.
    """
    green = plan.stack.outputs.get("ComputeEnvironmentArn", "")
    requests = []
    for queue in plan.queues:
        others = tuple(each for each in queue.environments if each != green)
        before = plan.recorded.queues.get(queue.arn, ())
        own = {plan.name, plan.present.arn if plan.present else plan.name}
        same = [each for each in others if each not in own] == [
            each for each in before if each not in own
        ]
        wanted = before if same and plan.present else others
        if not wanted:
            raise BatchregError(
                f"The job queue {queue.name} would have no compute environment left.",
                "Give it another one first.",
            )
        requests.append(update.queue_request(queue.arn, wanted))
    return requests


def give_back(batch: Any, plan: Plan, screen: Screen, sleep: Sleep) -> None:
    """Let the environment use nothing of the companion's any more, so that it can be deleted."""
    assert plan.present
    now = environment.read(following.until_settled(batch, plan.present.arn, screen, sleep=sleep))
    if plan.restore is not None:
        _restore(batch, plan, now, screen, sleep)
    elif survey.ids_of(plan.stack) & {each.id for each in (now.template, *now.overrides)}:
        raise BatchregError(
            f"The launch template of {plan.name} was changed while batchreg worked.",
            "Run the same command again: it starts from what is there now.",
        )
    elif plan.recorded.updates and not plan.foreign and now.update_policy == plan.policy:
        _restore_policy(batch, plan)  # an earlier run was killed before it did that


def _restore(batch: Any, plan: Plan, now: Environment, screen: Screen, sleep: Sleep) -> None:
    """Give the environment back its launch template, and wait until it is VALID."""
    assert plan.present
    if not update.same_templates(now.specification, plan.restore):
        if not update.same_templates(now.specification, plan.present.specification):
            raise BatchregError(
                f"The launch template of {plan.name} was changed while batchreg worked.",
                "Run the same command again: it starts from what is there now.",
            )
        request = update.restore_request(
            now.arn, plan.restore, plan.policy, ec2_configuration=plan.recorded.ec2_configuration
        )
        with following.explaining_interrupt(plan.name):
            batch.update_compute_environment(**request)
            what = "gets back its own" if plan.restore else "gives up batchreg's"
            screen.note(f"Updating {plan.name}: it {what} launch template.")
            # The stack can be deleted only once no instance starts from its launch templates.
            following.until_valid(batch, now.arn, screen, sleep=sleep)
    _restore_policy(batch, plan)


def _restore_policy(batch: Any, plan: Plan) -> None:
    """Put back the update policy, where this update or the one before used another."""
    assert plan.present
    if plan.present.update_policy == plan.policy == plan.recorded.update_policy:
        return
    batch.update_compute_environment(
        **update.policy_request(plan.present.arn, plan.recorded.update_policy)
    )


def _has_what_attach_gave(stack: Stack, recorded: Recorded, present: Environment) -> bool:
    names = {f"{name}Id": name for name, _, _ in recorded.copies}
    expected = [stack.outputs.get(f"{name}Id", "") for name, _, _ in recorded.copies]
    original = environment.references(recorded.specification)
    now = environment.references(present.specification)
    return (
        bool(names)
        and [each.id for each in now] == expected
        and [each.targets for each in now] == [each.targets for each in original]
    )


def _merged(stack: Stack, recorded: Recorded, present: Environment) -> Mapping[str, Any]:
    """Return what somebody has changed, with each of our copies replaced by its original."""
    originals = {
        stack.outputs.get(f"{name}Id", ""): _bare(each)
        for (name, _, _), each in zip(
            recorded.copies, _specifications(recorded.specification), strict=True
        )
    }

    def give_back(each: Mapping[str, Any]) -> dict[str, Any]:
        own = originals.get(each.get("launchTemplateId", ""))
        if own is None:
            return dict(each)
        kept = {key: each[key] for key in ("targetInstanceTypes", "userdataType") if key in each}
        return {**own, **kept}

    first, *others = _specifications(present.specification)
    restored = give_back(_bare(first))
    if others:
        restored["overrides"] = [
            specification
            for specification in map(give_back, others)
            if specification.keys() - {"targetInstanceTypes", "userdataType"}
        ]
    return restored


def _specifications(specification: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    whole = specification or {}
    return [whole, *whole.get("overrides", [])]


def _bare(specification: Mapping[str, Any]) -> dict[str, Any]:
    names = ("launchTemplateId", "launchTemplateName", "version", "userdataType")
    return {name: specification[name] for name in names if name in specification}
