"""Do these credentials pull this image? Asks the registry, within a time limit."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from batchreg.registry.client import RegistryClient
from batchreg.registry.images import Image
from batchreg.registry.logins import Credentials
from batchreg.registry.problems import Problem
from batchreg.registry.pull import PullCheck, host_of, log_in


@dataclass(frozen=True)
class Verdict:
    """Whether an image can be pulled: a cause, the fact in a line, and the next step if it cannot.

    No field holds any part of the credentials, nor words of the registry's that might.
    """

    image: str
    ok: bool
    cause: str
    fact: str
    step: str
    details: Mapping[str, str]

    @property
    def text(self) -> str:
        return f"{self.fact} {self.step}".rstrip()


Judge = Callable[[RegistryClient], tuple[str, dict[str, str]]]


def check(
    image: Image,
    credentials: Credentials | None,
    *,
    architectures: Collection[str] = ("amd64",),
    seconds: float = 10,
) -> Verdict:
    """Return whether the image can be pulled for each of the architectures, within `seconds`."""
    return start(image, credentials, architectures=architectures, seconds=seconds)()


def start(
    image: Image,
    credentials: Credentials | None,
    *,
    architectures: Collection[str] = ("amd64",),
    seconds: float = 10,
) -> Callable[[], Verdict]:
    """Begin a check, beside others, and return the function that waits for its verdict."""
    return _start(
        image, seconds, lambda client: PullCheck(image, credentials, client).run(architectures)
    )


def check_login(host: str, credentials: Credentials, *, seconds: float = 10) -> Verdict:
    """Return whether `docker login` would succeed at a registry."""
    image = Image(host, host, "")
    return _start(image, seconds, lambda client: log_in(image, credentials, client))()


def _start(image: Image, seconds: float, judge: Judge) -> Callable[[], Verdict]:
    """Judge in a thread, so that the wait ends although nothing can stop a lookup of a name."""
    client = RegistryClient(host_of(image), seconds)
    done: queue.SimpleQueue[Verdict | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            fact, details = judge(client)
            done.put(Verdict(image.name, True, "ok", fact, "", details))
        except Problem as problem:
            done.put(_negative(image, problem))
        except Exception as bug:
            done.put(bug)
        finally:
            client.close()

    def wait() -> Verdict:
        try:
            found = done.get(timeout=max(0, client.until - time.monotonic()))
        except queue.Empty:
            found = _negative(image, client.timeout())
            client.stop()
        if isinstance(found, Exception):
            raise found
        return found

    threading.Thread(target=work, name=f"check {image.name}", daemon=True).start()
    return wait


def _negative(image: Image, problem: Problem) -> Verdict:
    return Verdict(image.name, False, problem.cause, problem.fact, problem.step, problem.details)
