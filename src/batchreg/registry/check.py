"""Does this login pull this image? The registry itself is asked, and the time is limited."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from batchreg.registry import pull as registry_pull
from batchreg.registry.client import Failed, RegistryClient
from batchreg.registry.images import Image


@dataclass(frozen=True)
class Credentials:
    """A user name and a password, which no traceback shows."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True)
class Verdict:
    """Whether an image can be pulled. `text`, one line: the fact, then the next step.

    No field holds any part of a login, nor words of the registry's that might.
    """

    image: str
    ok: bool
    cause: str
    text: str
    details: Mapping[str, str]


def check(
    image: Image,
    login: Credentials | None,
    *,
    architectures: Collection[str] = ("amd64",),
    seconds: float = 10,
) -> Verdict:
    """Return whether the image can be pulled for each of the architectures, within `seconds`."""
    return start(image, login, architectures=architectures, seconds=seconds)()


def start(
    image: Image,
    login: Credentials | None,
    *,
    architectures: Collection[str] = ("amd64",),
    seconds: float = 10,
) -> Callable[[], Verdict]:
    """Begin a check, beside others, and return the function that waits for its verdict."""
    return _start(
        image, seconds, lambda talk: registry_pull.Pull(image, login, talk).run(architectures)
    )


def check_login(host: str, login: Credentials, *, seconds: float = 10) -> Verdict:
    """Return whether `docker login` would succeed at a registry."""
    image = Image(host, host, "")
    return _start(image, seconds, lambda talk: registry_pull.Pull(image, login, talk).log_in())()


def _start(
    image: Image, seconds: float, judge: Callable[[RegistryClient], tuple[str, dict[str, str]]]
) -> Callable[[], Verdict]:
    """Judge in a thread: while it looks up a name nothing can stop it, yet the wait must end."""
    talk = RegistryClient(registry_pull.host_of(image), seconds)
    done: queue.SimpleQueue[Verdict | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            text, details = judge(talk)
            done.put(Verdict(image.name, True, "ok", text, details))
        except Failed as failure:
            done.put(_negative(image, failure))
        except Exception as bug:
            done.put(bug)
        finally:
            talk.close()

    def wait() -> Verdict:
        try:
            found = done.get(timeout=max(0, talk.until - time.monotonic()))
        except queue.Empty:
            found = _negative(image, talk.timeout())
        if isinstance(found, Exception):
            raise found
        return found

    threading.Thread(target=work, name=f"check {image.name}", daemon=True).start()
    return wait


def _negative(image: Image, failure: Failed) -> Verdict:
    return Verdict(image.name, False, failure.cause, failure.text, failure.details)
