"""The log of a job, read from CloudWatch as it grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types_boto3_logs import CloudWatchLogsClient
    from types_boto3_logs.type_defs import GetLogEventsRequestTypeDef

LOG_GROUP = "/aws/batch/job"

# CloudWatch pages by time as well, so a job that was silent has pages without a line. For a stream
# whose lines have expired it returns such pages forever (boto3 issue 4591).
EMPTY_PAGES = 100


@dataclass(frozen=True)
class Line:
    """A line of a job's log. `time` is in milliseconds since 1970."""

    text: str
    time: int


class LogReader:
    """Reads a job's log streams, one per attempt, as they grow: no line twice, none lost."""

    def __init__(self, logs: CloudWatchLogsClient) -> None:
        self._logs = logs
        self._tokens: dict[str, str] = {}
        self._shown: Counter[str] = Counter()  # lines of each stream
        self._again: Counter[str] = Counter()  # those of them that will come a second time

    @property
    def lines(self) -> int:
        """The number of lines so far."""
        return self._shown.total()

    def read(self, job: Mapping[str, Any]) -> Iterator[Line]:
        """Yield what has come since the last call."""
        for stream in streams(job):
            yield from self._read(stream)

    def drain(
        self,
        job: Mapping[str, Any],
        sleep: Callable[[float], None],
        *,
        quiet_seconds: float = 2,
        patience_seconds: float = 5,
    ) -> Iterator[Line]:
        """Yield the last lines of a job that has finished; they can be some seconds late.

        It ends when none has come for `quiet_seconds`, or none at all for `patience_seconds`.
        """
        waited = 0.0
        while streams(job) and waited < (quiet_seconds if self.lines else patience_seconds):
            sleep(0.5)
            waited += 0.5
            for line in self.read(job):
                waited = 0
                yield line

    def _read(self, stream: str) -> Iterator[Line]:
        empty = 0
        while empty < EMPTY_PAGES:
            request: GetLogEventsRequestTypeDef = {
                "logGroupName": LOG_GROUP,
                "logStreamName": stream,
                "startFromHead": True,
            }
            token = self._tokens.get(stream)
            if token:
                request["nextToken"] = token
            try:
                answer = self._logs.get_log_events(**request)
            except self._logs.exceptions.ResourceNotFoundException:
                return  # the first line creates the group and the stream
            except self._logs.exceptions.InvalidParameterException:
                if not token:
                    raise
                # A token lasts 24 hours, and the job may have been silent for longer.
                del self._tokens[stream]
                self._again[stream] = self._shown[stream]
                continue
            for event in answer["events"]:
                if self._again[stream]:
                    self._again[stream] -= 1
                    continue
                self._shown[stream] += 1
                yield Line(event["message"], event["timestamp"])
            # At the end of the stream, and only there, the token that was sent comes back.
            self._tokens[stream] = answer["nextForwardToken"]
            if answer["nextForwardToken"] == token:
                return
            empty = 0 if answer["events"] else empty + 1


def streams(job: Mapping[str, Any]) -> list[str]:
    """Return the names of a job's log streams, the first attempt's first."""
    attempts = [
        attempt.get("container", {}).get("logStreamName") for attempt in job.get("attempts", [])
    ]
    attempts.append(job.get("container", {}).get("logStreamName"))
    return list(dict.fromkeys(filter(None, attempts)))
