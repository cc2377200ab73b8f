"""Collect everything that doctor needs: nothing is changed, and independent calls run in parallel.

The order of calls: what was asked about (a stack, a job queue, a compute environment or a job)
leads to the queues and compute environments, and to the stack of batchreg's that they belong to, if
any; those lead to the launch template, the role, the network and the instances of each environment;
the secrets and the image are looked at beside them. Each stage is a frozen value that the next
takes. At most six calls follow one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from batchreg.attach import owner
from batchreg.attach.environment import companion_name
from batchreg.aws import url_suffix
from batchreg.doctor import destinations, facts, findings
from batchreg.doctor.collect import batch, credentials, instances, machines, network, roles
from batchreg.doctor.collect import launch_template as templates
from batchreg.doctor.collect.calls import SECONDS, Absent, Caller, Clients, Unseen, name_of, start
from batchreg.doctor.collect.redact import without_changing
from batchreg.doctor.collect.stages import DONE, Computing, Origin, Place, Scope, is_ecr, places
from batchreg.doctor.facts import Facts
from batchreg.doctor.machines import MachineImage
from batchreg.doctor.topology import Host
from batchreg.errors import BatchregError
from batchreg.registry import images
from batchreg.registry.logins import Credentials
from batchreg.registry_login import HUB
from batchreg.stack.states import Stack

Check = Callable[..., Any]  # registry.check
JOB_ROLES = 4  # that are looked at
LEAST_SECONDS = 5  # for a registry: one that has had less is not called unreachable


def collect(
    clients: Clients,
    scope: Scope,
    *,
    check: Check | None = None,
    now: datetime | None = None,
    seconds: float = SECONDS,
) -> Facts:
    """Return the facts; `clients` gives a client by service name, `check` asks a registry.

    All of it takes at most `seconds`; what fails, or does not arrive in time, is listed in
    `not_looked_at`. Raises an error of botocore's where there are no credentials.
    """
    caller = Caller(clients, seconds=seconds)
    found, secret = Collector(caller, scope, check, now or datetime.now(UTC)).run()
    gaps = tuple(sorted(caller.gaps.values(), key=lambda gap: (gap.permission, gap.what)))
    return without_changing(replace(found, not_looked_at=gaps), secret, findings.signature)


@dataclass(frozen=True)
class Collector:
    """Which call follows from which. A Future's result is None where its call failed."""

    caller: Caller
    scope: Scope
    check: Check | None
    now: datetime

    def run(self) -> tuple[Facts, tuple[str, ...]]:
        """Return the facts, and the words that must not appear in them."""
        linked = self.begin(roles.linked, "AWSServiceRoleForBatch")
        if self.scope.by_stack:
            origin, queues, computing = self.from_stack()
        else:
            origin, queues, computing = self.from_queue()
        stack = start(self.stack, origin)
        found = queues.result()
        jobs = start(self.jobs, origin, found)
        looks = [start(self.templates, origin, place) for place in computing.places]
        secrets = start(self.secrets, origin, looks)
        job_roles = start(self.job_roles, origin, jobs)
        image = start(self.image, origin, computing, jobs, secrets)
        hosts = start(self.hosts, jobs, secrets)
        here = [
            start(self.place, origin, place, look, secrets, hosts)
            for place, look in zip(computing.places, looks, strict=True)
        ]
        unknown = start(self.queue_names, origin, found)
        reads = secrets.result()
        main, *others = [one.result() for one in here]
        of_places = {one["environment"]: more for one, more in (main, *others)}
        stuck, running, running_images = jobs.result()
        described = stack.result()
        arns = [raw["computeEnvironmentArn"] for raw in (computing.raws or {}).values()]
        seen = Facts(
            time=self.now.isoformat(timespec="seconds"),
            stack_name=described.name
            if described
            else self.scope.stack
            if self.scope.by_stack
            else "",
            region=self.scope.region,
            profile=self.scope.profile,
            account=next((arn.split(":")[4] for arn in arns), ""),
            stack=described,
            environments=_environments(computing, of_places),
            queues=None
            if found is None
            else tuple(replace(one, running=running.get(one.name)) for one in found),
            jobs=stuck,
            running_images=running_images,
            queue_names=unknown.result(),
            secrets=None if reads is None else tuple(read.fact for read in reads),
            service_linked_role=linked.result(),
            job_roles=job_roles.result(),
            image=image.result(),
            others=tuple(Facts(**one) for one, _ in others),
            **main[0],
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

    def from_stack(self) -> tuple[Origin, Future[Any], Computing]:
        """Find the stack first, so that whoever has no credentials learns that."""
        asked = self.begin(batch.asked_job, self.scope.job) if self.scope.job else DONE
        origin = Origin()
        try:
            found = batch.stack(self.caller, self.scope.stack)
            template = self.begin(batch.template, found) if found else DONE
            origin = Origin(stack=found, exists=bool(found), template=template)
        except (Unseen, Absent):
            pass
        origin = replace(origin, job=asked.result() or {})
        queues = _ending(origin.outputs, "JobQueueArn")
        arns = _ending(origin.outputs, "ComputeEnvironmentArn")
        if origin.stack and not (queues or arns):
            of_stack = self.begin(batch.resources, origin.stack).result() or {}
            arns, queues = (of_stack.get(kind, []) for kind in batch.BATCH_TYPES)
        queues = queues or _some(origin.job.get("jobQueue"))
        listed = self.begin(batch.queues, queues) if queues else DONE
        arns = arns or [name for queue in listed.result() or () for name in queue.environments]
        raws = self.begin(batch.environments, arns).result() if arns else None
        return origin, listed, _computing(arns, raws, origin.outputs.get("InstanceProfileArn", ""))

    def from_queue(self) -> tuple[Origin, Future[Any], Computing]:
        """Begin at a job queue or a compute environment, and see which stack they belong to."""
        job, arns, queue = dict[str, Any](), list[str](), self.scope.queue
        if self.scope.job:
            job = self.begin(batch.asked_job, self.scope.job).result() or {}
            queue = queue or job.get("jobQueue", "")
        if self.scope.environment:
            arns = [self.scope.environment]
            listed = start(self.queues_of, name_of(self.scope.environment))
        else:
            listed = self.begin(batch.queues, [queue]) if queue else DONE
            arns = [name for one in listed.result() or () for name in one.environments]
        candidates = dict.fromkeys([*map(companion_name, map(name_of, arns)), self.scope.stack])
        stacks = {
            name: self.begin(batch.stack, name) for name in filter(None, candidates if arns else ())
        }
        raws = self.begin(batch.environments, arns).result() if arns else None
        described = [*(raws or {}).values()]
        for name in {*owner.tagged(described)} - stacks.keys():
            stacks[name] = self.begin(batch.stack, name)
        for one in stacks.values():
            stack: Stack | None = one.result()
            if stack and owner.belongs(stack, described):
                template = self.begin(batch.template, stack)
                found = Origin(stack=stack, exists=True, template=template, job=job)
                if found.kind != "foreign":
                    return found, listed, _computing(arns, raws, "")
        return Origin(job=job), listed, _computing(arns, raws, "")

    def queues_of(self, environment: str) -> list[facts.Queue] | None:
        found = self.begin(batch.all_queues).result()
        return None if found is None else batch.using(found, environment)

    def queue_names(
        self, origin: Origin, queues: Sequence[facts.Queue] | None
    ) -> tuple[str, ...] | None:
        """Return the queues that there are, where what was asked about does not exist."""
        found = any(queue.exists for queue in queues or ()) or self.scope.environment
        if found or (origin.exists is not False and self.scope.by_stack) or origin.job:
            return None
        every = self.begin(batch.all_queues).result()
        return None if every is None else tuple(sorted(one["jobQueueName"] for one in every))

    def stack(self, origin: Origin) -> facts.Stack | None:
        if origin.exists is None:
            return None
        if origin.stack is None:
            return facts.Stack(name=self.scope.stack, exists=False)
        cause = self.begin(batch.cause, origin.stack)
        return facts.Stack(
            name=origin.stack.name,
            kind=origin.kind,
            environments=tuple(map(name_of, origin.stack.arns("ComputeEnvironmentArn"))),
            status=origin.stack.status,
            reason=origin.stack.reason,
            cause=cause.result() or "",
            refresh_minutes=_number(origin.parameters, "CredentialRefreshMinutes") or 30,
            root_volume_gib=_number(origin.parameters, "RootVolumeGiB"),
            kms_key=origin.parameters.get("KmsKeyArn", ""),
        )

    def jobs(
        self, origin: Origin, queues: Sequence[facts.Queue] | None
    ) -> tuple[tuple[facts.Job, ...] | None, dict[str, int | None], tuple[str, ...]]:
        """Return the jobs, how many run in each queue, and the images of those that run."""
        looks = {
            queue.name: self.begin(batch.jobs, queue.name, self.now)
            for queue in queues or ()
            if queue.exists
        }
        lists = {name: look.result() for name, look in looks.items()}
        running = {name: one.running for name, one in lists.items() if one}
        running_images = tuple(
            image for one in lists.values() if one for image in one.running_images
        )
        found: tuple[facts.Job, ...]
        if origin.job:
            found = (batch.job(origin.job, asked=True),)
        elif self.scope.job:
            unknown = any(gap.what == "job" for gap in self.caller.gaps.values())
            missing = facts.Job(id=self.scope.job, asked=True, exists=False)
            return None if unknown else (missing,), running, running_images
        else:
            found = tuple(
                batch.job(raw, asked=False) for one in lists.values() if one for raw in one.stuck
            )
            if not found and (not lists or not all(one and one.whole for one in lists.values())):
                return None, running, running_images
        return found, running, running_images

    def secrets(
        self, origin: Origin, looks: Sequence[Future[facts.LaunchTemplate | None]]
    ) -> list[credentials.Read] | None:
        """Look at the stack's secrets, or those that the instances are given, and at the job's."""
        of_stack = {one.arn: one for one in origin.registries}
        of_job = batch.own_secret(origin.job)
        found = {
            name: self.begin(credentials.secret, name)
            for name in dict.fromkeys([*of_stack, *_some(of_job)])
        }
        for name in (name for look in looks if (one := look.result()) for name in one.secret_ids):
            if name not in found or name == of_job:
                of_job = "" if name == of_job else of_job
                found.setdefault(name, self.begin(credentials.secret, name))
        reads: dict[str, credentials.Read] = {}
        for name, future in found.items():
            known = of_stack.get(name)
            read = future.result().marked(
                owned=bool(known and known.slot),
                registry=known.host if known and known.key else "",
                of_job=name == of_job and not known,
            )
            reads.setdefault(read.arn, read)
        # None: of a stack of which nothing is known. A queue without a stack has no secrets.
        return list(reads.values()) or (None if self.scope.by_stack else [])

    def place(
        self,
        origin: Origin,
        place: Place,
        look: Future[facts.LaunchTemplate | None],
        secrets: Future[list[credentials.Read] | None],
        hosts: Future[list[Host]],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the facts about one compute environment, by their names in Facts.

        The second value is more about the environment itself, by its names in facts.Environment.
        """
        role = start(self.role, origin, place, look, secrets)
        net = start(self.net, origin, place, hosts)
        found = start(self.instances, origin, place)
        offered = self.begin(machines.types, place.resources.get("instanceTypes", ()))
        image = start(self.machine_image, place, look)
        of_spot = start(self.spot, place)
        service_role = start(self.service_role, place)
        launches = (
            self.begin(instances.launch_failures, [place.name], self.now) if place.name else DONE
        )
        quota = self.begin(_quota, place.resources) if place.resources else DONE
        running, lost = found.result()
        return {
            "environment": place.name,
            "launch_template": look.result(),
            "role": role.result(),
            "instances": running,
            "launch_failures": _tuple(launches.result()),
            "quota": quota.result(),
            "machine_image": image.result(),
            "service_role": service_role.result(),
            **of_spot.result(),
            **net.result(),
        }, {"cluster_exists": not lost, "offered": offered.result()}

    def machine_image(
        self, place: Place, look: Future[facts.LaunchTemplate | None]
    ) -> MachineImage | None:
        """Look at the machine image, where AWS Batch does not choose it."""
        template = look.result()
        chosen = machines.chosen_image(place.resources, template.machine_image if template else "")
        found: MachineImage | None = self.begin(machines.image, chosen).result()
        return found

    def service_role(self, place: Place) -> facts.Role | None:
        """Look at the role that AWS Batch takes, where it is not the service-linked one."""
        arn = place.service_role
        if not arn.startswith("arn:") or roles.LINKED in arn:
            return None
        starts = roles.BY_SPOT_FLEET if place.by_fleet else roles.BY_AUTO_SCALING
        question = {"ActionNames": [*roles.BATCH, *starts]}
        return roles.of(self.caller, arn, "batch", self.scope.region, question)

    def spot(self, place: Place) -> dict[str, Any]:
        """Return what starts Spot instances, by their names in Facts."""
        if not place.on_spot:
            return {}
        role = self.begin(roles.linked, "AWSServiceRoleForEC2Spot")
        fleet, failures = DONE, DONE
        arn = place.resources.get("spotIamFleetRole", "")
        if place.by_fleet and arn.startswith("arn:"):
            failures = self.begin(instances.spot_failures, place.resources, self.now)
            question = {"ActionNames": list(roles.SPOT_FLEET)}
            fleet = start(roles.of, self.caller, arn, "spotfleet", self.scope.region, question)
        return {
            "spot_role": role.result(),
            "fleet_role": fleet.result(),
            "spot_failures": _tuple(failures.result()),
        }

    def job_roles(self, origin: Origin, jobs: Future[Any]) -> tuple[facts.Role, ...] | None:
        """Look at the roles of the jobs that wait; a job's own secret is read by one of them."""
        found = jobs.result()[0]
        if found is None:
            return None
        secret = batch.own_secret(origin.job)
        arns = [arn for job in found for arn in (job.execution_role, job.role)]
        looks = [
            start(
                roles.of,
                self.caller,
                arn,
                "ecs-tasks",
                self.scope.region,
                roles.reading(arn, [secret]) if arn == found[0].execution_role else {},
            )
            for arn in list(dict.fromkeys(arns))[:JOB_ROLES]
            if arn.startswith("arn:")
        ]
        return tuple(look.result() for look in looks)

    def role(
        self,
        origin: Origin,
        place: Place,
        look: Future[facts.LaunchTemplate | None],
        secrets: Future[list[credentials.Read] | None],
    ) -> facts.Role | None:
        """Look at the role of the instances, which reads the secrets that they are given."""
        if not place.profile:
            return None
        template = look.result()
        given = template.secret_ids if template else ()
        arns = given or tuple(one.arn for one in origin.registries)

        def reads() -> list[credentials.Read]:
            # A job's own secret is read by its execution role.
            return [read for read in secrets.result() or () if {read.arn, read.name} & {*arns}]

        holder = roles.Holder(place.profile, origin.outputs.get("InstanceRoleArn", ""))
        return roles.role(self.caller, holder, self.scope.region, arns, reads)

    def templates(self, origin: Origin, place: Place) -> facts.LaunchTemplate | None:
        """Look at the launch template of a compute environment, in the version that it uses."""
        of_stack = origin.outputs.get("LaunchTemplateId")
        used = place.resources.get("launchTemplate") or (
            {"launchTemplateId": of_stack, "version": "$Latest"}
            if of_stack and not place.resources
            else None
        )
        if not used:
            none = facts.LaunchTemplate(id="", fetches_credentials=False, newest_fetches=False)
            return none if place.resources else None
        values = {
            "AWS::Region": self.scope.region,
            "AWS::URLSuffix": url_suffix(self.scope.region),
            **origin.parameters,
            **{name.removesuffix("Arn"): value for name, value in origin.outputs.items()},
        }
        deployed = origin.deployed
        own = deployed and not deployed.attached
        text = deployed.user_data_with(values) if deployed and own else None
        size = _number(origin.parameters, "RootVolumeGiB")
        written = None if text is None else templates.Written(text, size)
        found: facts.LaunchTemplate | None = self.begin(
            templates.launch_template, used, written
        ).result()
        return found

    def net(self, origin: Origin, place: Place, hosts: Future[list[Host]]) -> dict[str, Any]:
        """Return the facts about the network, by their names in Facts."""
        ids = place.resources.get("subnets") or _split(origin.parameters.get("SubnetIDs"))
        group_ids = place.resources.get("securityGroupIds") or _split(
            origin.parameters.get("SecurityGroupIDs")
        )
        return network.look(self.caller, ids, group_ids, hosts)

    def hosts(
        self, jobs: Future[Any], secrets: Future[list[credentials.Read] | None]
    ) -> list[Host]:
        """Resolve the names of AWS's services and of the registries that are needed."""
        names = [read.fact.host for read in secrets.result() or () if read.fact.host]
        of_jobs = [self.scope.image or "", *(job.image for job in jobs.result()[0] or ())]
        registries = destinations.hosts([*names, *destinations.of_images(of_jobs)])
        return network.resolve(self.caller, self.scope.region, registries)

    def instances(
        self, origin: Origin, place: Place
    ) -> tuple[tuple[facts.Instance, ...] | None, bool]:
        """Return the instances, and whether their cluster does not exist."""
        if not place.profile:
            return None, False
        raw = self.begin(instances.running, place.profile)
        agents: instances.Agents | None = None
        lost = False
        if place.cluster:
            try:
                agents = instances.agents(self.caller, place.cluster)
            except Absent:
                agents, lost = {}, True
            except Unseen:
                pass
        found = raw.result()
        if found is None:
            return None, lost
        if origin.kind != "batchreg":  # whose instance profile is its own
            found = instances.of(found, place.name, agents)
        # Those without a connected agent first; one without credentials may be connected all the same.
        connected = {name for name, agent in (agents or {}).items() if agent.connected}
        doubtful = sorted(found, key=lambda one: one["InstanceId"] in connected)
        consoles = {
            one["InstanceId"]: self.begin(instances.console, one["InstanceId"])
            for one in doubtful[: instances.CONSOLES]
        }
        return tuple(
            instances.instance(one, agents, consoles.get(one["InstanceId"], DONE).result())
            for one in found
        ), lost

    def image(
        self,
        origin: Origin,
        computing: Computing,
        jobs: Future[Any],
        secrets: Future[list[credentials.Read] | None],
    ) -> facts.Verdict | None:
        """Ask the registry for the image: the one named, or the first job's.

        Not ECR, which wants the credentials of the instance's or the execution role.
        """
        name = self.scope.image or next(
            (job.image for job in jobs.result()[0] or () if job.image), ""
        )
        if not name or not self.check or is_ecr(name):
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
        types = [
            kind for one in computing.places for kind in one.resources.get("instanceTypes", ())
        ]
        given = self.caller.left
        verdict = self.check(
            image,
            Credentials(mine.username, mine.password) if mine else None,
            seconds=given,
            architectures=images.architectures(types),
        )
        if verdict.details.get("why") == "timeout" and given < LEAST_SECONDS:
            self.caller.miss(f"image {name}", "its registry")
            return None
        return facts.Verdict(
            image=name,
            ok=verdict.ok,
            cause=verdict.cause,
            fact=verdict.fact,
            step=verdict.step,
            registry=image.registry,
            anonymous=mine is None,
        )


def _computing(arns: Sequence[str], raws: Mapping[str, Any] | None, profile: str) -> Computing:
    names = tuple(map(name_of, arns))
    return Computing(names=names, raws=raws, places=places(names, raws or {}, profile))


def _environments(
    computing: Computing, more: Mapping[str, Mapping[str, Any]]
) -> tuple[facts.Environment, ...] | None:
    raws = computing.raws
    if raws is None:
        return None
    made = [batch.environment(name, raws.get(name)) for name in computing.names]
    return tuple(replace(one, **more.get(one.name, {})) for one in made)


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
