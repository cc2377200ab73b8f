"""Does this login pull this image? The registry itself is asked, and the time is limited."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from batchreg import registry_pull
from batchreg.image import Image
from batchreg.registry_http import Failed, Talk


@dataclass(frozen=True)
class Login:
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


def check(image: Image, login: Login | None, *, architectures: Collection[str] = ("amd64",),
          seconds: float = 10) -> Verdict:
    """Return whether the image can be pulled for each of the architectures, within `seconds`."""
    return start(image, login, architectures=architectures, seconds=seconds)()


def start(image: Image, login: Login | None, *, architectures: Collection[str] = ("amd64",),
          seconds: float = 10) -> Callable[[], Verdict]:
    """Begin a check and return the function that waits for its verdict; several run side by side.

    The wait ends in time even where a thread cannot be stopped, as while it looks up a name.
    """
    talk = Talk(registry_pull.host_of(image), seconds)
    done: queue.SimpleQueue[Verdict | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put(_verdict(image, login, architectures, talk))
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

    threading.Thread(target=work, daemon=True).start()
    return wait


def _verdict(image: Image, login: Login | None, wanted: Collection[str], talk: Talk) -> Verdict:
    try:
        text, details = registry_pull.Pull(image, login, talk).run(wanted)
    except Failed as failure:
        return _negative(image, failure)
    return Verdict(image.name, True, "ok", text, details)


def _negative(image: Image, failure: Failed) -> Verdict:
    return Verdict(image.name, False, failure.cause, failure.text, failure.details)
