"""Debian's Chromium without a window, driven by the DevTools protocol on two pipes.

Source: chromedevtools.github.io/devtools-protocol; with --remote-debugging-pipe, Chromium reads
commands from descriptor 3 and answers on 4, each a JSON object that ends with a null byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.environ import ENVIRON

PROGRAM = "chromium-headless-shell"
SECONDS = 30  # for an answer: the first start reads a few hundred megabytes


class Browser:
    """One page in one browser."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # A process of it may write a last file while the folder goes.
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
            )
            self._start(stack, folder)
            stack.callback(self._stop)
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            self.call("Page.enable")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack, folder: str) -> None:
        commands, self._commands = map(_high, os.pipe())
        self._answers, answers = map(_high, os.pipe())
        for one in (self._commands, self._answers):
            stack.callback(os.close, one)
        self._number, self._session, self._read = 0, "", b""
        # The shell puts the pipes where Chromium wants them; dash knows no numbers above 9.
        arguments = [
            *("bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", PROGRAM),
            *("--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"),
            f"--user-data-dir={folder}",
        ]
        self._process = subprocess.Popen(
            arguments,
            env=ENVIRON,
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its many processes end together
        )
        os.close(commands)
        os.close(answers)

    def _stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; raises RuntimeError for an error."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            continue
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b"\0" not in self._read:
            if not select.select([self._answers], [], [], until - time.monotonic())[0]:
                raise TimeoutError(f"{PROGRAM} has not answered within {SECONDS} s")
            more = os.read(self._answers, 1 << 16)
            if not more:
                raise RuntimeError(f"{PROGRAM} has ended")
            self._read += more
        first, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def open(self, path: Path, *, width: int, height: int = 800, dark: bool = False) -> None:
        """Show a file on a screen of this size, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.absolute().as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            continue

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def picture(self, *, scale: float = 1, height: int | None = None) -> bytes:
        """Return the page as a PNG: all of it, or so many pixels from its top."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"]}
        shot = self.call(
            "Page.captureScreenshot", clip={**clip, "scale": scale}, captureBeyondViewport=True
        )
        return base64.b64decode(shot["data"])


def _high(descriptor: int) -> int:
    """Return a copy of a descriptor that is neither 3 nor 4, in its place."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return copy
