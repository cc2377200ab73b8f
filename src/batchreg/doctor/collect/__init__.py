"""Collect everything that doctor needs: nothing is changed, and independent calls run in parallel.

The order of calls: what was asked about (the stack, or a job) leads to the job queues and compute
environments; those lead to the launch template, the role, the network and the instances; the
secrets and the image are looked at beside them. Each stage is a frozen value that the next takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from batchreg.aws import url_suffix
from batchreg.doctor import destinations, facts
from batchreg.doctor.collect import batch, credentials, instances, network
from batchreg.doctor.collect import launch_template as templates
from batchreg.doctor.collect.calls import SECONDS, Absent, Caller, Clients, Unseen, name_of, start
from batchreg.doctor.collect.redact import without
from batchreg.doctor.collect.stages import DONE, Computing, Origin, Scope, is_fargate, on_ec2
from batchreg.doctor.facts import Facts
from batchreg.doctor.topology import Host
from batchreg.errors import BatchregError
from batchreg.registry import images
from batchreg.registry.logins import Credentials
from batchreg.registry_login import HUB

Check = Callable[..., Any]  # registry.check


def collect(
    clients: Clients,
    scope: Scope,
    *,
    check: Check | None = None,
    now: datetime | None = None,
    seconds: float = SECONDS,
) -> Facts:
    """Return the facts; `clients` gives a client by service name, `check` asks a registry.

    No call takes longer than `seconds`; what fails is listed in `not_looked_at`. Raises an error of
    botocore's where there are no credentials.
    """
    caller = Caller(clients, seconds=seconds)
    found, secret = Collector(caller, scope, check, now or datetime.now(UTC)).run()
    gaps = tuple(sorted(caller.gaps.values(), key=lambda gap: (gap.permission, gap.what)))
    done: Facts = without(replace(found, not_looked_at=gaps), secret)
    return done


@dataclass(frozen=True)
class Collector:
    """Which call follows from which. A Future's result is None where its call failed."""

    caller: Caller
    scope: Scope
    check: Check | None
    now: datetime

    def run(self) -> tuple[Facts, tuple[str, ...]]:
        """Return the facts, and the words that must not appear in them."""
        linked = self.begin(credentials.service_linked_role)
        origin = self.origin()
        stack = start(self.stack, origin)
        arns = _ending(origin.outputs, "JobQueueArn") or _some(origin.job.get("jobQueue"))
        queues = self.begin(batch.queues, arns) if arns else DONE
        jobs = start(self.jobs, origin, arns)
        secrets = start(self.secrets, origin)
        computing = self.computing(origin, queues)
        template = start(self.launch_template, origin, computing)
        role = start(self.role, origin, computing, secrets)
        net = start(self.net, origin, computing, start(self.hosts, jobs, secrets))
        machines = start(self.instances, computing)
        launches = (
            self.begin(instances.launch_failures, computing.names, self.now)
            if computing.names
            else DONE
        )
        quota = self.begin(_quota, computing.main) if computing.main else DONE
        image = start(self.image, origin, computing, jobs, secrets)
        running, lost = machines.result()
        reads = secrets.result()
        seen = Facts(
            time=self.now.isoformat(timespec="seconds"),
            stack_name=self.scope.stack,
            region=self.scope.region,
            profile=self.scope.profile,
            stack=stack.result(),
            environments=_environments(computing, lost),
            queues=_tuple(queues.result()),
            jobs=jobs.result(),
            launch_template=template.result(),
            secrets=None if reads is None else tuple(read.fact for read in reads),
            role=role.result(),
            service_linked_role=linked.result(),
            instances=running,
            launch_failures=_tuple(launches.result()),
            quota=quota.result(),
            image=image.result(),
            **net.result(),
        )
        return seen, tuple(word for read in reads or () for word in read.words)

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin to look; the result is None where that fails."""

        def look() -> Any:
            try:
                return function(self.caller, *arguments)
            except (Unseen, Absent):
                return None

        return start(look)

    def origin(self) -> Origin:
        """Find the stack first, so that whoever has no credentials learns that."""
        asked = self.begin(batch.asked_job, self.scope.job) if self.scope.job else DONE
        try:
            found = batch.stack(self.caller, self.scope.stack)
        except (Unseen, Absent):
            return Origin(job=asked.result() or {})
        template = self.begin(batch.template, found) if found else DONE
        return Origin(stack=found, exists=bool(found), template=template, job=asked.result() or {})

    def stack(self, origin: Origin) -> facts.Stack | None:
        if origin.exists is None:
            return None
        if origin.stack is None:
            return facts.Stack(name=self.scope.stack, exists=False)
        return facts.Stack(
            name=origin.stack.name,
            status=origin.stack.status,
            reason=origin.stack.reason,
            cause=self.begin(batch.cause, origin.stack).result() or "",
            refresh_minutes=_number(origin.parameters, "CredentialRefreshMinutes") or 30,
            root_volume_gib=_number(origin.parameters, "RootVolumeGiB"),
            kms_key=origin.parameters.get("KmsKeyArn", ""),
        )

    def computing(self, origin: Origin, queues: Future[Any]) -> Computing:
        arns = _ending(origin.outputs, "ComputeEnvironmentArn") or [
            name for queue in queues.result() or () for name in queue.environments
        ]
        raws = self.begin(batch.environments, arns).result() if arns else None
        main = on_ec2(raws or {})
        profile = main.get("instanceRole") or origin.outputs.get("InstanceProfileArn", "")
        return Computing(names=tuple(map(name_of, arns)), raws=raws, main=main, profile=profile)

    def jobs(self, origin: Origin, queues: Sequence[str]) -> tuple[facts.Job, ...] | None:
        if origin.job:
            return (batch.job(origin.job, asked=True),)
        if self.scope.job:
            unknown = any(gap.what == "job" for gap in self.caller.gaps.values())
            return None if unknown else (facts.Job(id=self.scope.job, asked=True, exists=False),)
        found = [self.begin(batch.stuck_jobs, queue, self.now) for queue in queues]
        lists = [one.result() for one in found]
        if all(one is None for one in lists):
            return None
        return tuple(batch.job(one, asked=False) for some in lists for one in some or ())

    def secrets(self, origin: Origin) -> list[credentials.Read] | None:
        """Look at the stack's secrets, or at those that its template names, and at the job's."""
        of_stack = {one.arn: one for one in origin.registries}
        of_job = batch.own_secret(origin.job)
        everything = dict.fromkeys([*of_stack, *_some(of_job)])
        found = {arn: self.begin(credentials.secret, arn) for arn in everything}
        reads = []
        for arn, one in found.items():
            known = of_stack.get(arn)
            reads.append(
                one.result().marked(
                    owned=bool(known and known.slot),
                    registry=known.host if known and known.key else "",
                    of_job=not known,
                )
            )
        return reads or None

    def role(
        self, origin: Origin, computing: Computing, secrets: Future[list[credentials.Read] | None]
    ) -> facts.Role | None:
        if not computing.profile:
            return None
        # A job's own secret is read by its execution role.
        reads = [read for read in secrets.result() or () if not read.fact.of_job]
        expected = origin.outputs.get("InstanceRoleArn", "")
        return credentials.role(self.caller, computing.profile, expected, self.scope.region, reads)

    def launch_template(self, origin: Origin, computing: Computing) -> facts.LaunchTemplate | None:
        of_stack = origin.outputs.get("LaunchTemplateId")
        used = computing.main.get("launchTemplate") or (
            {"launchTemplateId": of_stack, "version": "$Latest"} if of_stack else None
        )
        if not used:
            return None
        values = {
            "AWS::Region": self.scope.region,
            "AWS::URLSuffix": url_suffix(self.scope.region),
            **origin.parameters,
            **{name.removesuffix("Arn"): value for name, value in origin.outputs.items()},
        }
        deployed = origin.deployed
        text = deployed.user_data_with(values) if deployed else None
        size = _number(origin.parameters, "RootVolumeGiB")
        written = None if text is None else templates.Written(text, size)
        found: facts.LaunchTemplate | None = self.begin(
            templates.launch_template, used, written
        ).result()
        return found

    def net(
        self, origin: Origin, computing: Computing, hosts: Future[list[Host]]
    ) -> dict[str, Any]:
        """Return the facts about the network, by their names in Facts."""
        ids = computing.main.get("subnets") or _split(origin.parameters.get("SubnetIDs"))
        group_ids = computing.main.get("securityGroupIds") or _split(
            origin.parameters.get("SecurityGroupIDs")
        )
        return network.look(self.caller, ids, group_ids, hosts)

    def hosts(
        self,
        jobs: Future[tuple[facts.Job, ...] | None],
        secrets: Future[list[credentials.Read] | None],
    ) -> list[Host]:
        """Resolve the names of AWS's services and of the registries that are needed."""
        names = [read.fact.host for read in secrets.result() or () if read.fact.host]
        of_jobs = [self.scope.image or "", *(job.image for job in jobs.result() or ())]
        registries = destinations.hosts([*names, *destinations.of_images(of_jobs)])
        return network.resolve(self.caller, self.scope.region, registries)

    def instances(self, computing: Computing) -> tuple[tuple[facts.Instance, ...] | None, bool]:
        """Return the instances, and whether their cluster does not exist."""
        if not computing.profile:
            return None, False
        raw = self.begin(instances.running, computing.profile)
        clusters = [
            one["ecsClusterArn"]
            for one in (computing.raws or {}).values()
            if one.get("ecsClusterArn") and not is_fargate(one)
        ]
        connected: dict[str, bool] | None = {} if clusters else None
        lost = False
        for cluster in clusters:
            try:
                more = instances.agents(self.caller, cluster)
                connected = None if connected is None else {**connected, **more}
            except Absent:
                lost = True
            except Unseen:
                connected = None
        machines = raw.result()
        if machines is None:
            return None, lost
        # Those without a connected agent first; one without credentials may be connected all the same.
        doubtful = sorted(
            machines, key=lambda one: bool(connected and connected.get(one["InstanceId"]))
        )
        consoles = {
            one["InstanceId"]: self.begin(instances.console, one["InstanceId"])
            for one in doubtful[: instances.CONSOLES]
        }
        return tuple(
            instances.instance(one, connected, consoles.get(one["InstanceId"], DONE).result())
            for one in machines
        ), lost

    def image(
        self,
        origin: Origin,
        computing: Computing,
        jobs: Future[tuple[facts.Job, ...] | None],
        secrets: Future[list[credentials.Read] | None],
    ) -> facts.Verdict | None:
        """Ask the registry for the image: the one named, or the first job's."""
        name = self.scope.image or next((job.image for job in jobs.result() or () if job.image), "")
        if not name or not self.check:
            return None
        try:
            image = images.parse(name)
        except BatchregError as error:
            return facts.Verdict(
                image=name, ok=False, cause="no-image-name", fact=error.fact, step=error.step
            )
        wanted = HUB if image.on_hub else image.registry
        fitting = [
            read for read in secrets.result() or () if read.password and read.fact.host == wanted
        ]
        # A job's own secret is the last of them, and counts before the instances'.
        mine = next(iter(fitting[::-1] if batch.own_secret(origin.job) else fitting), None)
        verdict = self.check(
            image,
            Credentials(mine.username, mine.password) if mine else None,
            seconds=self.caller.seconds,
            architectures=images.architectures(computing.main.get("instanceTypes", ())),
        )
        return facts.Verdict(
            image=name,
            ok=verdict.ok,
            cause=verdict.cause,
            fact=verdict.fact,
            step=verdict.step,
            registry=image.registry,
        )


def _environments(computing: Computing, lost: bool) -> tuple[facts.Environment, ...] | None:
    raws = computing.raws
    if raws is None:
        return None
    made = [batch.environment(name, raws.get(name)) for name in computing.names]
    return tuple(replace(one, cluster_exists=one.fargate or not lost) for one in made)


def _quota(caller: Caller, main: Mapping[str, Any]) -> facts.Quota | None:
    return instances.quota(caller, main.get("instanceTypes", ()), spot=main.get("type") == "SPOT")


def _ending(outputs: Mapping[str, str], kind: str) -> list[str]:
    return [value for name, value in outputs.items() if name.endswith(kind)]


def _some(value: str | None) -> list[str]:
    return [value] if value else []


def _number(parameters: Mapping[str, str], name: str) -> int:
    text = parameters.get(name, "")
    return int(text) if text.isdecimal() else 0


def _split(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _tuple(items: Iterable[Any] | None) -> tuple[Any, ...] | None:
    return None if items is None else tuple(items)


__all__ = ["Collector", "Computing", "Origin", "Scope", "collect"]
