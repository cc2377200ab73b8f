"""A job that waits: for how long, and after a while the command that finds out why."""

from __future__ import annotations

import time

from batchreg import waiting
from batchreg.cli.console import AnyScreen
from batchreg.jobs import batch as jobs
from batchreg.waiting import Sleep

# An instance takes one to three minutes to start. Off a terminal a line a minute is enough.
HINT_SECONDS = 60.0


class JobWatch:
    """Shows how long a job has been waiting; its `sleep` is for jobs.follow."""

    def __init__(
        self,
        job_id: str,
        screen: AnyScreen,
        sleep: Sleep = time.sleep,
        hint_seconds: float = HINT_SECONDS,
    ) -> None:
        self._job_id, self._screen, self._sleep = job_id, screen, sleep
        self._hint_seconds = hint_seconds
        self._status, self._hinted = "", False
        self._wait: waiting.Wait | None = None

    def update(self, state: jobs.State) -> None:
        """Take note of the job's state, which has been shown."""
        if state.status != self._status:
            self.close()
            self._status = state.status
            if state.status in jobs.WAITING:
                text = f"Job {self._job_id} is {state.status}"
                self._wait = waiting.begin(text, plain_seconds=HINT_SECONDS)
        if self._wait and jobs.is_pull_failure(state.reason):
            self._hint("")

    def sleep(self, seconds: float) -> None:
        """Wait until the job is looked at again; TimedOut as `sleep` raises it."""
        if self._status == "RUNNABLE" and self._wait and self._wait.seconds >= self._hint_seconds:
            self._hint("An instance takes one to three minutes to start. ")
        self._sleep(seconds)

    def close(self) -> None:
        """Stop showing that the job waits."""
        waiting.end(self._wait)
        self._wait = None

    def _hint(self, why: str) -> None:
        if not self._hinted:
            self._hinted = True
            self._screen.note(
                f"{why}To find out why it waits: {doctor(self._screen, self._job_id)}"
            )


def doctor(screen: AnyScreen, job_id: str) -> str:
    """Return the command that diagnoses a job."""
    return screen.command("doctor", "--job", job_id)
