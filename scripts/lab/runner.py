"""Runs the embedded AWS's jobs: starts instances for them, and tasks on those.

AWS Batch decides which jobs are to run (`local_aws.jobs`); this is the rest of AWS: EC2, ECS, and
the machines.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lab.ecr import Endpoint
from lab.host import Host

if TYPE_CHECKING:
    from local_aws import LocalAws

Data = dict[str, Any]


class Runner:
    """Works until the `with` block ends; an instance stays for the next jobs until then."""

    def __init__(self, aws: LocalAws, directory: Path, hurry: float) -> None:
        """Keep the instances in `directory`; their time passes `hurry` times faster."""
        self._aws, self._directory, self._hurry = aws, directory, hurry
        self._hosts: dict[tuple[str, int], Host] = {}  # by environment and revision
        self._retired: dict[Host, float] = {}  # with the time at which its tasks must end
        self._count = 0
        self._ecr = Endpoint(aws, aws.ecr_host, directory / "ecr-endpoint")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._ecr.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        for host in [*self._hosts.values(), *self._retired]:
            host.close()
        self._ecr.__exit__()

    def _run(self) -> None:
        while not self._closing.wait(0.05):
            work = self._aws.work()
            environments = work["environments"]
            for host in [*self._hosts.values(), *self._retired]:
                for job in set(work["stop"]) & host.tasks.keys():
                    host.tasks[job].stop()
                for job in [job for job, task in host.tasks.items() if task.ended]:
                    del host.tasks[job], host.vcpus[job]
            self._retire(environments)
            for order in work["start"]:
                self._start(order, environments[order["environment"]])

    def _start(self, order: Data, environment: Data) -> None:
        host = self._host(order["environment"], environment)
        if host is None or not host.connected or order["jobId"] in host.tasks:
            return
        if order["vcpus"] + sum(host.vcpus.values()) > environment["maxvCpus"]:
            return
        host.vcpus[order["jobId"]] = order["vcpus"]
        host.start_task(order)

    def _host(self, name: str, environment: Data) -> Host | None:
        """Return the instance for an environment's next job, which is perhaps just booting."""
        key = (name, environment["revision"])
        host = self._hosts.get(key)
        if host is not None and not host.is_alive():
            del self._hosts[key]
            if not host.joined:
                self._aws.lost(name, host.lost)
            return None
        if host is None and environment["usable"]:
            self._count += 1
            folder = self._directory / f"instance{self._count}"
            host = Host(self._aws, environment, folder, self._ecr.etc)
            self._hosts[key] = host
            host.start()
        return host

    def _retire(self, environments: dict[str, Data]) -> None:
        """Replace the instances of an environment that has another shape, as its policy says."""
        for name, revision in list(self._hosts):
            environment = environments.get(name)
            if environment is None or environment["revision"] != revision:
                policy = (environment or {}).get("updatePolicy", {})
                minutes = policy.get("jobExecutionTimeoutMinutes", 30)
                seconds = 0 if policy.get("terminateJobsOnUpdate") else minutes * 60 / self._hurry
                host = self._hosts.pop((name, revision))
                self._retired[host] = time.monotonic() + seconds
        for host, deadline in list(self._retired.items()):
            if host.tasks and time.monotonic() > deadline:
                for job, task in list(host.tasks.items()):
                    why = f"Host EC2 (instance {host.instance_id}) terminated."
                    self._aws.report(job, "INTERRUPTED", statusReason=why)
                    task.stop()
            if not host.tasks:
                del self._retired[host]
                host.close()
