"""Looks at everything that doctor needs: nothing is changed, and all calls go out side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchreg.aws import url_suffix
from batchreg.doctor import facts
from batchreg.doctor.collect import batch, instances, network
from batchreg.doctor.collect import credentials as login
from batchreg.doctor.collect.calls import SECONDS, Absent, Caller, Clients, Unseen, name_of, start
from batchreg.doctor.collect.redact import without
from batchreg.doctor.facts import Facts, Gap
from batchreg.errors import BatchregError
from batchreg.registry import images
from batchreg.registry_login import HUB
from batchreg.stack import states as stacks

if TYPE_CHECKING:
    from batchreg.render.text import Deployed

Check = Callable[..., Any]  # registry.check

DONE: Future[Any] = Future()  # of what there is nothing to ask for
DONE.set_result(None)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What to look at: a stack, perhaps a job, perhaps an image."""

    stack: str
    region: str
    job: str | None = None
    image: str | None = None


def collect(
    clients: Clients,
    subject: Subject,
    *,
    check: Check | None = None,
    now: datetime | None = None,
    seconds: float = SECONDS,
) -> Facts:
    """Return the facts; `clients` gives a client by service name, `check` asks a registry.

    No call takes longer than `seconds`; what fails is listed in `not_looked_at`. Raises an error of
    botocore's where there are no credentials.
    """
    asker = Caller(clients, seconds=seconds)
    found, secret = Collection(asker, subject, check, now or datetime.now(UTC)).run()
    gaps = tuple(sorted(asker.gaps.values(), key=lambda gap: (gap.permission, gap.what)))
    done: Facts = without(replace(found, not_looked_at=gaps), secret)
    return done


class Collection:
    """One run: which call follows from which. What waits is a Future; its result is None where the
    call failed.
    """

    def __init__(self, asker: Caller, subject: Subject, check: Check | None, now: datetime) -> None:
        self.asker, self.subject = asker, subject
        self.check, self.now = check, now

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin to look; the result is None where that fails."""

        def look() -> Any:
            try:
                return function(self.asker, *arguments)
            except (Unseen, Absent):
                return None

        return start(look)

    def run(self) -> tuple[Facts, tuple[str, ...]]:
        """Return the facts, and the words that may not stand in them."""
        linked = self.begin(login.service_linked_role)
        asked = self.begin(batch.asked_job, self.subject.job) if self.subject.job else DONE
        stack = self._find_stack()
        self.raw_job: dict[str, Any] = asked.result() or {}
        queue_arns = _arns(self.outputs, "JobQueueArn") or list(
            filter(None, [self.raw_job.get("jobQueue")])
        )
        queues = self.begin(batch.queues, queue_arns) if queue_arns else DONE
        jobs = start(self._jobs, queue_arns)
        names = _arns(self.outputs, "ComputeEnvironmentArn") or [
            name for queue in queues.result() or () for name in queue.environments
        ]
        self.secrets = start(self._secrets)
        self.environments: dict[str, Any] | None = (
            self.begin(batch.environments, names).result() if names else None
        )
        self.main = _on_ec2(self.environments or {})
        more = self._beneath(list(map(name_of, names)))
        self.jobs = jobs.result()
        verdict = start(self._image)
        reads = self.secrets.result()
        seen = Facts(
            time=self.now.isoformat(timespec="seconds"),
            region=self.subject.region,
            stack=stack.result(),
            queues=_tuple(queues.result()),
            jobs=self.jobs,
            secrets=None if reads is None else tuple(read.fact for read in reads),
            service_linked_role=linked.result(),
            image=verdict.result(),
            **more,
        )
        return seen, tuple(word for read in reads or () for word in read.words)

    def _find_stack(self) -> Future[facts.Stack | None]:
        """Find the stack first, so that whoever has no credentials learns that."""
        self.present: stacks.Stack | None = None
        self.body, self.outputs = DONE, dict[str, str]()
        try:
            self.present = batch.stack(self.asker, self.subject.stack)
        except (Unseen, Absent):
            return DONE
        if self.present is None:
            return start(facts.Stack, name=self.subject.stack, exists=False)
        self.outputs = dict(self.present.outputs)
        self.body = self.begin(batch.template, self.present)
        return start(self._stack, self.present)

    def _stack(self, present: stacks.Stack) -> facts.Stack:
        minutes = present.parameters.get("CredentialRefreshMinutes", "")
        return facts.Stack(
            name=present.name,
            status=present.status,
            reason=present.reason,
            cause=self.begin(batch.cause, present).result() or "",
            refresh_minutes=int(minutes) if minutes.isdecimal() else 30,
        )

    def _beneath(self, names: list[str]) -> dict[str, Any]:
        """Look at what the compute environments are made of, all of it side by side."""
        raws = self.environments
        profile = self.main.get("instanceRole") or self.outputs.get("InstanceProfileArn")
        role = start(self._role, profile) if profile else DONE
        template, net = start(self._launch_template), start(self._network)
        machines = start(self._instances, profile) if profile else DONE
        failures = self.begin(instances.launch_failures, names, self.now) if names else DONE
        quota = self.begin(_quota, self.main) if self.main else DONE
        seen, lost = machines.result() or (None, False)
        made = None if raws is None else [batch.environment(name, raws.get(name)) for name in names]
        return {
            "environments": None
            if made is None
            else tuple(replace(one, cluster_exists=one.fargate or not lost) for one in made),
            "launch_template": template.result(),
            "role": role.result(),
            "instances": seen,
            "launch_failures": _tuple(failures.result()),
            "quota": quota.result(),
            **net.result(),
        }

    def _jobs(self, queues: Sequence[str]) -> tuple[facts.Job, ...] | None:
        if self.raw_job:
            return (batch.job(self.raw_job, asked=True),)
        if self.subject.job:
            unknown = any(gap.what == "job" for gap in self.asker.gaps.values())
            return None if unknown else (facts.Job(id=self.subject.job, asked=True, exists=False),)
        found = [self.begin(batch.stuck_jobs, queue, self.now) for queue in queues]
        lists = [one.result() for one in found]
        if all(one is None for one in lists):
            return None
        return tuple(batch.job(one, asked=False) for some in lists for one in some or ())

    def _deployed(self) -> Deployed | None:
        """Return what the stack's template was rendered from, None if it is not batchreg's."""
        from batchreg.render.text import read_template

        return read_template(self.body.result() or "")

    def _secrets(self) -> list[login.Read] | None:
        """Look at the stack's secrets, or at those that its template names, and at the job's."""
        arns = [
            value
            for name, value in self.outputs.items()
            if name.startswith("RegistrySecret") and name.endswith("Arn")
        ]
        if not arns and (deployed := self._deployed()):
            arns = list(deployed.settings.secret_arns)
        arns += filter(None, [batch.own_secret(self.raw_job)])
        found = [self.begin(login.secret, arn) for arn in dict.fromkeys(arns)]
        return [one.result() for one in found] if found else None

    def _role(self, profile: str) -> facts.Role:
        return login.role(
            self.asker,
            profile,
            self.outputs.get("InstanceRoleArn", ""),
            self.subject.region,
            self.secrets.result() or [],
        )

    def _launch_template(self) -> facts.LaunchTemplate | None:
        used = self.main.get("launchTemplate") or (
            {"launchTemplateId": self.outputs["LaunchTemplateId"], "version": "$Latest"}
            if "LaunchTemplateId" in self.outputs
            else None
        )
        if not used:
            return None
        values = {
            "AWS::Region": self.subject.region,
            "AWS::URLSuffix": url_suffix(self.subject.region),
            **(self.present.parameters if self.present else {}),
            **{name.removesuffix("Arn"): value for name, value in self.outputs.items()},
        }
        deployed = self._deployed()
        written = deployed.user_data_with(values) if deployed else None
        found: facts.LaunchTemplate | None = self.begin(
            login.launch_template, used, written
        ).result()
        return found

    def _network(self) -> dict[str, Any]:
        parameters = self.present.parameters if self.present else {}
        ids = self.main.get("subnets") or _split(parameters.get("SubnetIDs"))
        group_ids = self.main.get("securityGroupIds") or _split(parameters.get("SecurityGroupIDs"))
        groups = self.begin(network.groups, group_ids) if group_ids else DONE
        raw = self.begin(network.subnets, ids).result() if ids else None
        seen: dict[str, Any] = {}
        if raw is not None:
            vpcs = sorted({one["VpcId"] for one in raw.values()})
            tables, lists, endpoints, dns = (
                self.begin(look, vpcs)
                for look in (network.route_tables, network.acls, network.endpoints, network.dns)
            )
            seen["subnets"] = tuple(
                network.subnet(name, raw.get(name), tables.result(), lists.result()) for name in ids
            )
            seen["endpoints"], seen["dns"] = _tuple(endpoints.result()), dns.result()
        if (found := groups.result()) is not None:
            seen["egress"] = network.egress(found)
            seen["groups_missing"] = tuple(name for name in group_ids if name not in found)
        return seen

    def _instances(self, profile: str) -> tuple[tuple[facts.Instance, ...] | None, bool]:
        """Return the instances, and whether their cluster is gone."""
        raw = self.begin(instances.running, profile)
        clusters = [
            one["ecsClusterArn"]
            for one in (self.environments or {}).values()
            if one.get("ecsClusterArn") and not _fargate(one)
        ]
        connected: dict[str, bool] | None = {} if clusters else None
        lost = False
        for cluster in clusters:
            try:
                more = instances.agents(self.asker, cluster)
                connected = None if connected is None else {**connected, **more}
            except Absent:
                lost = True
            except Unseen:
                connected = None
        machines = raw.result()
        if machines is None:
            return None, lost
        doubtful = [
            one for one in machines if connected is None or not connected.get(one["InstanceId"])
        ][: instances.CONSOLES]
        consoles = {
            one["InstanceId"]: self.begin(instances.console, one["InstanceId"]) for one in doubtful
        }
        return tuple(
            instances.instance(one, connected, consoles.get(one["InstanceId"], DONE).result())
            for one in machines
        ), lost

    def _image(self) -> facts.Verdict | None:
        """Ask the registry for the image: the one named, or the first job's."""
        name = self.subject.image or next((job.image for job in self.jobs or () if job.image), "")
        if not name or not self.check:
            return None
        try:
            image = images.parse(name)
        except BatchregError as error:
            return facts.Verdict(image=name, ok=False, cause="no-image-name", text=str(error))
        from batchreg.registry.logins import Credentials

        wanted = HUB if image.on_hub else image.registry
        fitting = [
            read
            for read in self.secrets.result() or ()
            if read.password and read.fact.host == wanted
        ]
        # A job's own secret is the last of them, and counts before the instances'.
        mine = next(iter(fitting[::-1] if batch.own_secret(self.raw_job) else fitting), None)
        given = Credentials(mine.username, mine.password) if mine else None
        kinds = self.main.get("instanceTypes", ())
        verdict = self.check(
            image, given, seconds=self.asker.seconds, architectures=images.architectures(kinds)
        )
        return facts.Verdict(
            image=name,
            ok=verdict.ok,
            cause=verdict.cause,
            text=verdict.text,
            registry=image.registry,
        )


def _quota(asker: Caller, main: dict[str, Any]) -> facts.Quota | None:
    return instances.quota(asker, main.get("instanceTypes", ()), spot=main.get("type") == "SPOT")


def _fargate(raw: dict[str, Any]) -> bool:
    return str(raw.get("computeResources", {}).get("type", "")).startswith("FARGATE")


def _on_ec2(raws: dict[str, Any]) -> dict[str, Any]:
    """Return the resources of the compute environment on EC2, empty where there is none."""
    found: list[dict[str, Any]] = [
        raw.get("computeResources", {}) for raw in raws.values() if not _fargate(raw)
    ]
    return found[0] if found else {}


def _arns(outputs: dict[str, str], kind: str) -> list[str]:
    return [value for name, value in outputs.items() if name.endswith(kind)]


def _split(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _tuple(items: Iterable[Any] | None) -> tuple[Any, ...] | None:
    return None if items is None else tuple(items)


__all__ = ["Gap", "Subject", "collect"]
