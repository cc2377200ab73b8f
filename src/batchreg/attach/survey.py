"""What there is before anything is attached: an environment and what belongs to it, read-only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from batchreg.attach import companion, environment, look, update
from batchreg.attach.companion import InstanceRole, Recorded
from batchreg.attach.environment import Environment, Queue, TemplateReference
from batchreg.errors import BatchregError
from batchreg.render.text import read_template
from batchreg.stack import states
from batchreg.stack.states import Stack

Clients = Callable[[str], Any]

THEIRS, OURS, CHANGED = "theirs", "ours", "changed"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """An environment, as it is now and as it was before it was attached.

    `present`: as it is. `answer`: the same, as Describe gives it. `original`: as its creator left
    it. `uses`: THEIRS, OURS, or CHANGED where it had been attached and somebody has changed its
    launch template since. `versions`: {reference of the original: the version it means today}.
    `stack`: the companion, None if there is none; `body`: its template; `recorded`: what that says.
    `running`: jobs that an update may end, in all queues of the environment.
    """

    present: Environment
    answer: Mapping[str, Any] = field(repr=False)
    original: Environment
    uses: str
    role: InstanceRole
    queues: tuple[Queue, ...]
    versions: Mapping[TemplateReference, Mapping[str, Any]] = field(repr=False)
    running: int
    stack: Stack | None = None
    body: str = field(default="", repr=False)
    recorded: Recorded | None = None

    @property
    def bases(self) -> tuple[look.Base, ...]:
        return look.bases(self.original, self.versions)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How an attached environment is doing.

    `uses`: as in Survey; OURS too where the companion has a copy of the environment. `newer`: the
    launch templates that have another version today than what was copied, as "id: old → new".
    """

    environment: str
    created_by: str
    uses: str
    newer: tuple[str, ...]


def standing(survey: Survey) -> Standing:
    """Return what status and doctor say of an attached environment."""
    recorded = survey.recorded
    assert recorded
    copied = [(base_id, version) for _, base_id, version in recorded.copies]
    today = [(base.id, base.version) for base in survey.bases]
    same = survey.uses != CHANGED and len(copied) == len(today)
    return Standing(
        environment=survey.present.name,
        created_by=recorded.created_by,
        uses=survey.uses if recorded.updates else OURS,
        newer=tuple(
            f"{base_id}: {old} → {new}"
            for (base_id, old), (_, new) in (zip(copied, today, strict=True) if same else ())
            if old != new
        ),
    )


def find(clients: Clients, name: str) -> tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...]]:
    """Return the environment that is meant, and all queues of the account, as AWS describes them.

    `name`: of a compute environment or a job queue, or its ARN. Raises BatchregError where there
    is none, or where a queue has several environments.
    """
    batch = clients("batch")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(_describe, batch, [] if ":job-queue/" in name else [name])
        queues = tuple(
            queue
            for page in batch.get_paginator("describe_job_queues").paginate()
            for queue in page["jobQueues"]
        )
        found = asked.result()
    if not found:
        environments = _of_queue(queues, name, batch.meta.region_name)
        found = _describe(batch, environments)
        if len(found) > 1:
            names = [each["computeEnvironmentName"] for each in found]
            raise BatchregError(
                f"The job queue {name} has {len(found)} compute environments: {', '.join(names)}.",
                "Attach each of them by its name: jobs may run in any.",
            )
    if not found:
        raise BatchregError(
            f"The compute environment of the job queue {name} does not exist any more.",
            "Give the queue another one.",
        )
    return found[0], queues


def survey(
    clients: Clients,
    answer: Mapping[str, Any],
    queues: Sequence[Mapping[str, Any]],
    stack_name: str,
) -> Survey:
    """Look at everything that belongs to an environment. Calls run in parallel."""
    present = environment.read(answer)
    used_in = tuple(environment.queues(queues, present))
    with ThreadPoolExecutor() as pool:
        stack = pool.submit(_stack, clients("cloudformation"), stack_name)
        role = pool.submit(_role, clients("iam"), present)
        versions = pool.submit(_versions, clients("ec2"), present)
        jobs = pool.submit(_running, clients("batch"), used_in)
        companion_stack, body, recorded = stack.result()
        original, uses = _original(present, companion_stack, recorded)
        known = versions.result()
        if uses == OURS:
            known = _versions(clients("ec2"), original)
        return Survey(
            present=present,
            answer=answer,
            original=original,
            uses=uses,
            role=role.result(),
            queues=used_in,
            versions=known,
            running=jobs.result(),
            stack=companion_stack,
            body=body,
            recorded=recorded,
        )


def ids_of(stack: Stack) -> set[str]:
    """Return the ids of a companion stack's launch templates."""
    return {
        value for name, value in stack.outputs.items() if re.fullmatch(r"LaunchTemplate\d*Id", name)
    }


def _original(
    present: Environment, stack: Stack | None, recorded: Recorded | None
) -> tuple[Environment, str]:
    """Return the environment as it was before it was attached, and what it uses now."""
    if not stack or not recorded or recorded.cache_alone:
        return present, THEIRS
    before = replace(
        present,
        specification=recorded.specification,
        update_policy=recorded.update_policy,
        ec2_configuration=recorded.ec2_configuration or present.ec2_configuration,
    )
    if update.same_templates(present.specification, recorded.specification):
        return before, THEIRS
    used = {reference.id for reference in (present.template, *present.overrides)}
    ours = ids_of(stack)
    shapes = [[reference.targets for reference in each.overrides] for each in (present, before)]
    if used and used <= ours and shapes[0] == shapes[1]:
        return before, OURS
    return present, CHANGED


def _describe(batch: Any, names: Sequence[str]) -> list[Mapping[str, Any]]:
    if not names:
        return []
    found = batch.describe_compute_environments(computeEnvironments=list(names))
    return list(found["computeEnvironments"])


def _of_queue(queues: Sequence[Mapping[str, Any]], name: str, region: str) -> list[str]:
    for queue in queues:
        if name in (queue["jobQueueName"], queue["jobQueueArn"]):
            order = sorted(queue["computeEnvironmentOrder"], key=lambda entry: entry["order"])
            return [str(entry["computeEnvironment"]) for entry in order]
    names = ", ".join(sorted(queue["jobQueueName"] for queue in queues)[:5])
    raise BatchregError(
        f"There is no compute environment or job queue {name} in {region}.",
        f"The job queues there: {names}." if names else "Check --region.",
    )


def _stack(client: Any, name: str) -> tuple[Stack | None, str, Recorded | None]:
    stack = states.find(client, name)
    if not stack or stack.status in states.NOT_CREATED:  # an earlier run was interrupted
        return stack, "", None
    body = states.template_of(client, stack)
    deployed = read_template(body)
    if not deployed or not deployed.attached:
        raise BatchregError(
            f"The stack {name} exists, and it is not a companion stack.",
            "Choose another name for the companion stack with --stack-name.",
        )
    return stack, body, companion.recorded(deployed.attached)


def _role(client: Any, found: Environment) -> InstanceRole:
    """Return the role of an instance profile; an environment names the profile, or its ARN."""
    profile = found.instance_role.rpartition("/")[2]
    if not profile:  # there is no way to attach it, which `look.refusals` says
        return InstanceRole(arn="", id="")
    roles = client.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    if not roles:
        raise BatchregError(
            f"The instance profile {profile} of {found.name} has no role.",
            "Add the instance role to it.",
        )
    return InstanceRole(arn=roles[0]["Arn"], id=roles[0]["RoleId"])


def _versions(client: Any, found: Environment) -> dict[TemplateReference, Mapping[str, Any]]:
    """Return the launch template version that each reference means today, without ResolveAlias."""
    references = [each for each in (found.template, *found.overrides) if each]

    def ask(reference: TemplateReference) -> Mapping[str, Any]:
        key = (
            {"LaunchTemplateId": reference.id}
            if reference.id
            else {"LaunchTemplateName": reference.name}
        )
        answer = client.describe_launch_template_versions(**key, Versions=[reference.version])
        version: Mapping[str, Any] = answer["LaunchTemplateVersions"][0]
        return version

    with ThreadPoolExecutor() as pool:
        return dict(zip(references, pool.map(ask, references), strict=True))


def _running(batch: Any, queues: Sequence[Queue]) -> int:
    def count(queue: Queue, status: str) -> int:
        pages = batch.get_paginator("list_jobs").paginate(jobQueue=queue.arn, jobStatus=status)
        return environment.running_jobs(job for page in pages for job in page["jobSummaryList"])

    pairs = [(queue, status) for queue in queues for status in environment.RUNNING]
    with ThreadPoolExecutor() as pool:
        return sum(pool.map(lambda pair: count(*pair), pairs))
