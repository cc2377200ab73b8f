"""What the ECS agent does with a task: pull its image, run its container, tell how it went.

Pulls and reasons as in amazon-ecs-agent 1.105.1: since 1.83 a tag is resolved to a digest first, so
its failure is a CannotPullImageManifestError; only an image named by its digest can still fail with
a CannotPullContainerError.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from lab.agent import Login
from lab.parts import Engine, EngineError, PullError

# The agent gives a container 30 seconds after SIGTERM (ECS_CONTAINER_STOP_TIMEOUT); here nobody
# wants to wait for a shell that does not listen.
STOP_SECONDS = 1
EXITED = "Essential container in task exited"
NOT_STARTED = "Task failed to start"


class TaskError(Exception):
    """A task that cannot start, with the reason of its container and that of the task."""

    def __init__(self, reason: str, task_reason: str = NOT_STARTED) -> None:
        super().__init__(reason or task_reason)
        self.reason, self.task_reason = reason, task_reason


class TaskEngine(Engine):
    """A Docker Engine with what the agent asks of it."""

    def fetch(self, image: str, login: Login | None, behavior: str) -> str:
        """Have an image as ECS_IMAGE_PULL_BEHAVIOR says, and return its reference."""
        if "@" not in image and ":" not in image.rpartition("/")[2]:
            image += ":latest"
        present = self._has(image)
        if present and behavior in ("once", "prefer-cached"):
            return image
        try:
            self._fetch(image, login)
        except TaskError:
            if present and behavior == "default":
                return image
            raise
        return image

    def _fetch(self, image: str, login: Login | None) -> None:
        name, _, tag = image.rpartition(":")
        reference = image
        if "@" not in image:
            header = {"X-Registry-Auth": _encoded(login)}
            try:
                answer = self._call("GET", f"/distribution/{image}/json", headers=header)
            except EngineError as error:
                raise TaskError(
                    f"CannotPullImageManifestError: Error response from daemon: {error}"
                ) from None
            reference = f"{name}@{json.loads(answer)['Descriptor']['digest']}"
        try:
            self.pull(reference, login)
        except PullError as error:
            raise TaskError(
                f"CannotPullContainerError: Error response from daemon: {error}"
            ) from None
        if reference != image:
            where = f"repo={quote(name, safe='')}&tag={tag}"
            self._call("POST", f"/images/{reference}/tag?{where}")

    def _has(self, image: str) -> bool:
        try:
            self._call("GET", f"/images/{image}/json")
        except EngineError:
            return False
        return True

    def create(self, image: str, container: Mapping[str, Any], variables: list[str]) -> str:
        """Make a container as a Batch job describes it, and return its ID."""
        needs = {each["type"]: each["value"] for each in container.get("resourceRequirements", [])}
        vcpus = float(needs.get("VCPU", container.get("vcpus", 1)))
        memory = int(needs.get("MEMORY", container.get("memory", 512))) << 20
        linux = container.get("linuxParameters", {})
        body = {
            "Image": image,
            "Env": variables,
            **({"Cmd": container["command"]} if container.get("command") else {}),
            **({"User": container["user"]} if container.get("user") else {}),
            "HostConfig": {
                "NetworkMode": "host",
                "CpuShares": int(vcpus * 1024),
                "Memory": memory,
                "MemorySwap": memory,  # none besides
                "Binds": list(_binds(container)),
                "Privileged": container.get("privileged", False),
                "ReadonlyRootfs": container.get("readonlyRootFilesystem", False),
                "Init": linux.get("initProcessEnabled", False),
                "ShmSize": linux.get("sharedMemorySize", 64) << 20,
                "Tmpfs": {
                    each["containerPath"]: ",".join(
                        [*each.get("mountOptions", []), f"size={each['size']}m"]
                    )
                    for each in linux.get("tmpfs", [])
                },
                "Ulimits": [
                    {"Name": each["name"], "Soft": each["softLimit"], "Hard": each["hardLimit"]}
                    for each in container.get("ulimits", [])
                ],
            },
        }
        try:
            return str(self._json("POST", "/containers/create", body)["Id"])
        except EngineError as error:
            raise TaskError(
                f"CannotCreateContainerError: Error response from daemon: {error}"
            ) from None

    def start(self, container: str) -> None:
        try:
            self._call("POST", f"/containers/{container}/start")
        except EngineError as error:
            raise TaskError(
                f"CannotStartContainerError: Error response from daemon: {error}"
            ) from None

    def stop(self, container: str) -> None:
        try:
            self._call("POST", f"/containers/{container}/stop?t={STOP_SECONDS}")
        except EngineError as error:
            if "No such container" not in str(error):  # it has ended by itself meanwhile
                raise

    def end(self, container: str) -> tuple[int, bool]:
        """Wait for a container's end; return its exit code and whether memory ran out."""
        self._call("POST", f"/containers/{container}/wait", timeout=None)
        state = self._json("GET", f"/containers/{container}/json")["State"]
        return int(state["ExitCode"]), bool(state["OOMKilled"])

    def forget(self, container: str) -> None:
        self._call("DELETE", f"/containers/{container}?force=1&v=1")

    def lines(self, container: str) -> Iterator[str]:
        """Yield what a container prints, line by line, until it ends."""
        connection, answer = self._open(
            "GET", f"/containers/{container}/logs?follow=1&stdout=1&stderr=1", timeout=None
        )
        rest = b""
        try:
            while head := answer.read(8):
                rest += answer.read(int.from_bytes(head[4:8], "big"))
                *whole, rest = rest.split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace")
        finally:
            connection.close()
        if rest:
            yield rest.decode(errors="replace")


def _encoded(login: Login | None) -> str:
    return base64.urlsafe_b64encode(json.dumps(login or {}).encode()).decode()


def _binds(container: Mapping[str, Any]) -> Iterator[str]:
    """Yield the mount points of volumes on the host; a path there is one of this machine's."""
    paths = {
        volume["name"]: volume.get("host", {}).get("sourcePath")
        for volume in container.get("volumes", [])
    }
    for mount in container.get("mountPoints", []):
        if path := paths.get(mount["sourceVolume"]):
            access = "ro" if mount.get("readOnly") else "rw"
            yield f"{path}:{mount['containerPath']}:{access}"


class Task:
    """One attempt of a job on an instance, in a thread of its own."""

    def __init__(
        self,
        engine: TaskEngine,
        order: Mapping[str, Any],
        *,
        login: Callable[[Mapping[str, Any]], Login | None],
        behavior: str,
        variables: Callable[[Mapping[str, Any]], Mapping[str, str]],
        report: Callable[..., None],
        log: Callable[[list[str]], None],
    ) -> None:
        """Start it. `order` is what Batch wants to run.

        `login` finds the credentials of a container's image, `variables` what the agent adds to its
        environment; both may raise TaskError.
        """
        self._engine, self._order = engine, order
        self._login, self._behavior, self._variables = login, behavior, variables
        self._report, self._log = report, log
        self._container = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; the report of its end still comes."""
        if not self._stopping.is_set():
            self._stopping.set()
            if self._container:
                self._engine.stop(self._container)

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except TaskError as error:
            reason = {"reason": error.reason} if error.reason else {}
            self._report("STOPPED", statusReason=error.task_reason, **reason)
        except Exception as error:  # a mistake of this program's: no job waits for ever for its end
            self._report("STOPPED", statusReason=f"The embedded AWS failed: {error!r}")
            raise
        finally:
            if self._container:
                self._engine.forget(self._container)

    def _work(self) -> None:
        container = self._order["container"]
        image = self._engine.fetch(container["image"], self._login(container), self._behavior)
        given = {each["name"]: each.get("value", "") for each in container.get("environment", [])}
        variables = {**given, **self._variables(container), **self._order["variables"]}
        if self._stopping.is_set():
            raise TaskError("", NOT_STARTED)
        self._container = self._engine.create(
            image, container, [f"{name}={value}" for name, value in variables.items()]
        )
        self._engine.start(self._container)
        self._report("RUNNING")
        if self._stopping.is_set():  # while it started
            self._engine.stop(self._container)
        reader = threading.Thread(target=self._read)
        reader.start()
        code, starved = self._engine.end(self._container)
        reader.join()
        why = "OutOfMemoryError: Container killed due to memory usage" if starved else ""
        self._report(
            "STOPPED", exitCode=code, statusReason=EXITED, **({"reason": why} if why else {})
        )

    def _read(self) -> None:
        """Send the output to the log while it comes, what comes together in one call."""
        lines: list[str] = []
        over = threading.Event()
        lock = threading.Lock()

        def flush() -> None:
            with lock:
                batch, lines[:] = list(lines), []
                if batch:
                    self._log(batch)

        def regularly() -> None:
            while not over.wait(0.1):
                flush()

        sender = threading.Thread(target=regularly, daemon=True)
        sender.start()
        for line in self._engine.lines(self._container):
            with lock:
                lines.append(line)
        over.set()
        sender.join()
        flush()
