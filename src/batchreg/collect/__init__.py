"""Looks at everything that doctor needs: nothing is changed, and all calls go out side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from batchreg import facts
from batchreg import image as images
from batchreg import stack as stacks
from batchreg.collect import batch, instances, login, network
from batchreg.collect.asker import SECONDS, Absent, Asker, Clients, Unseen, name_of
from batchreg.collect.blot import without
from batchreg.errors import BatchregError
from batchreg.facts import Facts, Gap
from batchreg.registry_login import HUB

# Threads come when they are needed; some wait for what others are asking.
THREADS = 64

Check = Callable[..., Any]  # registry.check


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What to look at: a stack, perhaps a job, perhaps an image."""

    stack: str
    region: str
    job: str | None = None
    image: str | None = None


def collect(clients: Clients, subject: Subject, *, check: Check | None = None,
            now: datetime | None = None, seconds: float = SECONDS) -> Facts:
    """Return the facts; `clients` gives a client by service name, `check` asks a registry.

    No call takes longer than `seconds`; what fails is listed in `not_looked_at`. Raises an error of
    botocore's where there are no credentials.
    """
    asker = Asker(clients, seconds=seconds)
    with ThreadPoolExecutor(THREADS) as pool:
        found, secret = Collection(asker, pool, subject, check, now or datetime.now(UTC)).run()
    gaps = tuple(sorted(asker.gaps.values(), key=lambda gap: (gap.permission, gap.what)))
    done: Facts = without(replace(found, not_looked_at=gaps), secret)
    return done


class Collection:
    """One run: which call follows from which."""

    def __init__(self, asker: Asker, pool: ThreadPoolExecutor, subject: Subject,
                 check: Check | None, now: datetime) -> None:
        self.asker, self.pool, self.subject = asker, pool, subject
        self.check, self.now = check, now

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Start looking; the result is None where that fails."""
        def look() -> Any:
            try:
                return function(self.asker, *arguments)
            except (Unseen, Absent):
                return None
        return self.pool.submit(look)

    def run(self) -> tuple[Facts, tuple[str, ...]]:
        """Return the facts, and the words that may not stand in them."""
        linked = self.begin(login.service_linked_role)
        asked = self.begin(batch.asked_job, self.subject.job) if self.subject.job else None
        # Asked first, so that whoever has no credentials learns that.
        try:
            present = batch.stack(self.asker, self.subject.stack)
            known = True
        except (Unseen, Absent):
            present, known = None, False
        cause = self.begin(batch.cause, present) if present else None
        body = self.begin(batch.template, present) if present else None
        raw_job = asked.result() if asked else None
        outputs = dict(present.outputs) if present else {}
        queue_arns = _arns(outputs, "JobQueueArn") or [
            raw_job["jobQueue"] for _ in [0] if raw_job and raw_job.get("jobQueue")]
        queues = self.begin(batch.queues, queue_arns) if queue_arns else None
        jobs = self._jobs(raw_job, queue_arns)
        names = _arns(outputs, "ComputeEnvironmentArn")
        if not names and queues:
            names = [name for queue in queues.result() or () for name in queue.environments]
        secrets = self.pool.submit(self._secrets, outputs, body, raw_job)
        raws = self.begin(batch.environments, names).result() if names else None
        environments = None if raws is None else tuple(
            batch.environment(name, raws.get(name)) for name in map(name_of, names))
        main = _on_ec2(raws or {})
        profile = main.get("instanceRole") or outputs.get("InstanceProfileArn")
        role = self.pool.submit(self._role, profile, outputs, secrets) if profile else None
        template = self.pool.submit(self._launch_template, main, present, body)
        net = self.pool.submit(self._network, main, present)
        clusters = [raw["ecsClusterArn"] for raw in (raws or {}).values()
                    if raw.get("ecsClusterArn") and not _fargate(raw)]
        machines = self.pool.submit(self._instances, profile, clusters) if profile else None
        failures = self.begin(instances.launch_failures, list(map(name_of, names)), self.now)
        quota = self.begin(_quota, main) if main else None
        all_jobs = jobs.result()
        verdict = self.pool.submit(self._image, raw_job, all_jobs, main, secrets)
        reads = secrets.result()
        seen, lost = machines.result() if machines else (None, False)
        if lost and environments:
            environments = tuple(
                one if one.fargate or not one.exists else replace(one, cluster_exists=False)
                for one in environments)
        result = Facts(
            time=self.now.isoformat(timespec="seconds"), region=self.subject.region,
            stack=self._stack(present, cause) if known else None, environments=environments,
            queues=tuple(queues.result() or ()) or None if queues else None, jobs=all_jobs,
            launch_template=template.result(),
            secrets=None if reads is None else tuple(read.fact for read in reads),
            role=role.result() if role else None, service_linked_role=linked.result(),
            instances=seen, launch_failures=_tuple(failures.result()),
            quota=quota.result() if quota else None, image=verdict.result(), **net.result())
        return result, tuple(word for read in reads or () for word in read.words)

    def _stack(self, present: stacks.Stack | None, cause: Future[Any] | None) -> facts.Stack:
        if present is None:
            return facts.Stack(name=self.subject.stack, exists=False)
        minutes = present.parameters.get("CredentialRefreshMinutes", "")
        return facts.Stack(
            name=present.name, status=present.status, reason=present.reason,
            cause=(cause.result() if cause else None) or "",
            refresh_minutes=int(minutes) if minutes.isdecimal() else 30)

    def _jobs(self, raw: Any, queues: Sequence[str]) -> Future[tuple[facts.Job, ...] | None]:
        def look() -> tuple[facts.Job, ...] | None:
            if raw:
                return (batch.job(raw, asked=True),)
            if self.subject.job:
                gone = any(gap.what == "job" for gap in self.asker.gaps.values())
                return None if gone else (
                    facts.Job(id=self.subject.job, asked=True, exists=False),)
            if not queues:
                return None
            found = [self.begin(batch.stuck_jobs, queue, self.now) for queue in queues]
            lists = [one.result() for one in found]
            if all(one is None for one in lists):
                return None
            return tuple(batch.job(one, asked=False) for some in lists for one in some or ())
        return self.pool.submit(look)

    def _secrets(self, outputs: dict[str, str], body: Future[Any] | None,
                 raw_job: Any) -> list[login.Read] | None:
        """Look at the stack's secrets, or at those that its template names, and at the job's."""
        from batchreg import settings

        arns = [value for name, value in outputs.items()
                if name.startswith("RegistrySecret") and name.endswith("Arn")]
        if not arns and body and (made := settings.of_template(body.result() or "")):
            arns = list(made[1].secret_arns)
        own = batch.own_secret(raw_job) if raw_job else ""
        arns = list(dict.fromkeys([*arns, *([own] if own else [])]))
        return [one.result() for one in [self.begin(login.secret, arn) for arn in arns]] \
            if arns else None

    def _role(self, profile: str, outputs: dict[str, str],
              secrets: Future[list[login.Read] | None]) -> facts.Role:
        return login.role(self.asker, profile, outputs.get("InstanceRoleArn", ""),
                          self.subject.region, secrets.result() or [])

    def _launch_template(self, main: dict[str, Any], present: stacks.Stack | None,
                         body: Future[Any] | None) -> facts.LaunchTemplate | None:
        outputs = present.outputs if present else {}
        used = main.get("launchTemplate") or (
            {"launchTemplateId": outputs["LaunchTemplateId"], "version": "$Latest"}
            if "LaunchTemplateId" in outputs else None)
        if not used:
            return None
        text = body.result() if body else None
        values = {
            "AWS::Region": self.subject.region,
            "AWS::URLSuffix": "amazonaws.com.cn" if self.subject.region.startswith("cn-")
            else "amazonaws.com",
            **(present.parameters if present else {}),
            **{name.removesuffix("Arn"): value for name, value in outputs.items()}}
        written = login.written_user_data(text, values) if text else None
        try:
            return login.launch_template(self.asker, used, written)
        except Unseen:
            return None

    def _network(self, main: dict[str, Any], present: stacks.Stack | None) -> dict[str, Any]:
        parameters = present.parameters if present else {}
        ids = main.get("subnets") or _split(parameters.get("SubnetIDs"))
        group_ids = main.get("securityGroupIds") or _split(parameters.get("SecurityGroupIDs"))
        found = self.begin(network.groups, group_ids) if group_ids else None
        raw = self.begin(network.subnets, ids).result() if ids else None
        facts_of: dict[str, Any] = {}
        if raw is not None:
            vpcs = sorted({one["VpcId"] for one in raw.values()})
            tables, lists, endpoints, dns = (self.begin(look, vpcs) for look in (
                network.route_tables, network.acls, network.endpoints, network.dns))
            facts_of["subnets"] = tuple(
                network.subnet(name, raw.get(name), tables.result(), lists.result())
                for name in ids)
            facts_of["endpoints"] = _tuple(endpoints.result())
            facts_of["dns"] = dns.result()
        groups = found.result() if found else None
        if groups is not None:
            facts_of["egress"] = network.egress(groups)
            facts_of["groups_missing"] = tuple(name for name in group_ids if name not in groups)
        return facts_of

    def _instances(self, profile: str, clusters: Sequence[str],
                   ) -> tuple[tuple[facts.Instance, ...] | None, bool]:
        """Return the instances, and whether their cluster is gone."""
        raw = self.begin(instances.running, profile)
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
        doubtful = [one for one in machines if connected is None
                    or not connected.get(one["InstanceId"])][:instances.CONSOLES]
        consoles = {one["InstanceId"]: self.begin(instances.console, one["InstanceId"])
                    for one in doubtful}
        return tuple(
            instances.instance(one, connected, consoles[one["InstanceId"]].result()
                               if one["InstanceId"] in consoles else None)
            for one in machines), lost

    def _image(self, raw_job: Any, jobs: Sequence[facts.Job] | None, main: dict[str, Any],
               secrets: Future[list[login.Read] | None]) -> facts.Verdict | None:
        """Ask the registry for the image: the one named, or the first job's."""
        name = self.subject.image or next((job.image for job in jobs or () if job.image), "")
        if not name or not self.check:
            return None
        try:
            image = images.parse(name)
        except BatchregError as error:
            return facts.Verdict(image=name, ok=False, cause="no-image-name", text=str(error))
        from batchreg.registry import Login

        wanted, reads = HUB if image.on_hub else image.registry, secrets.result() or []
        own = batch.own_secret(raw_job) if raw_job else ""
        fitting = [read for read in reads if read.password and read.fact.host == wanted]
        mine = [read for read in fitting if read.arn == own] or fitting
        given = Login(mine[0].username, mine[0].password) if mine else None
        verdict = self.check(image, given, seconds=self.asker.seconds,
                             architectures=instances.architectures(main.get("instanceTypes", ())))
        return facts.Verdict(image=name, ok=verdict.ok, cause=verdict.cause, text=verdict.text,
                             registry=image.registry)


def _quota(asker: Asker, main: dict[str, Any]) -> facts.Quota | None:
    return instances.quota(asker, main.get("instanceTypes", ()), spot=main.get("type") == "SPOT")


def _fargate(raw: dict[str, Any]) -> bool:
    return str(raw.get("computeResources", {}).get("type", "")).startswith("FARGATE")


def _on_ec2(raws: dict[str, Any]) -> dict[str, Any]:
    """Return the resources of the compute environment on EC2, empty where there is none."""
    found: list[dict[str, Any]] = [raw.get("computeResources", {}) for raw in raws.values()
                                   if not _fargate(raw)]
    return found[0] if found else {}


def _arns(outputs: dict[str, str], kind: str) -> list[str]:
    return [value for name, value in outputs.items() if name.endswith(kind)]


def _split(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _tuple(items: Iterable[Any] | None) -> tuple[Any, ...] | None:
    return None if items is None else tuple(items)


__all__ = ["Gap", "Subject", "collect"]
