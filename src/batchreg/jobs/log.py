"""The log of a job, read from CloudWatch as it grows."""

from __future__ import annotations

from collections import Counter, defaultdict
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
MOST_LINES = 10_000  # in one answer, as CloudWatch allows


@dataclass(frozen=True)
class Line:
    """A line of a job's log. `time` is in milliseconds since 1970."""

    text: str
    time: int


class LogReader:
    """Reads a job's log streams, one per attempt, as they grow: no line twice, none lost.

    `since`: the time of the first line to read, in milliseconds since 1970.
    """

    def __init__(self, logs: CloudWatchLogsClient, since: int = 0) -> None:
        self._logs = logs
        self._tokens: dict[str, str] = {}
        self._since: dict[str, int] = defaultdict(lambda: since)
        self._restarts: dict[str, tuple[int, int]] = {}  # from when, and the lines shown before
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

    def tail(self, job: Mapping[str, Any], count: int) -> list[Line]:
        """Return the last lines so far, at most `count`; `read` continues after them.

        It reads backwards: of a long log it does not ask for the rest.
        """
        lines: list[Line] = []
        for stream in reversed(streams(job)):
            lines = [*self._tail(stream, count - len(lines)), *lines]
        return lines

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

    def _tail(self, stream: str, count: int) -> list[Line]:
        """Return the last lines of a stream, and remember where it ends now."""
        found: list[Line] = []
        end, token, empty = "", "", 0
        while empty < EMPTY_PAGES:
            request = self._request(stream, token)
            request |= {
                "startFromHead": False,
                "limit": min(max(count - len(found), 1), MOST_LINES),
            }
            try:
                answer = self._logs.get_log_events(**request)
            except self._logs.exceptions.ResourceNotFoundException:
                return []  # as in `_read`
            end = end or answer["nextForwardToken"]
            page = [Line(event["message"], event["timestamp"]) for event in answer["events"]]
            found = [*page, *found]
            if len(found) >= count or answer["nextBackwardToken"] == token:
                break
            token, empty = answer["nextBackwardToken"], 0 if page else empty + 1
        kept = found[len(found) - min(count, len(found)) :]
        if found:
            # Once the token is lost, reading starts after the first of these lines: those before
            # it were never shown.
            first = (kept or found[-1:])[0].time
            self._restarts[stream] = (first + 1, sum(line.time <= first for line in kept))
        self._shown[stream] = len(kept)
        self._tokens[stream] = end
        return kept

    def _request(self, stream: str, token: str | None) -> GetLogEventsRequestTypeDef:
        request: GetLogEventsRequestTypeDef = {
            "logGroupName": LOG_GROUP,
            "logStreamName": stream,
            "startFromHead": True,
        }
        if self._since[stream]:
            request["startTime"] = self._since[stream]
        if token:
            request["nextToken"] = token
        return request

    def _read(self, stream: str) -> Iterator[Line]:
        empty = 0
        while empty < EMPTY_PAGES:
            token = self._tokens.get(stream)
            try:
                answer = self._logs.get_log_events(**self._request(stream, token))
            except self._logs.exceptions.ResourceNotFoundException:
                return  # the first line creates the group and the stream
            except self._logs.exceptions.InvalidParameterException:
                if not token:
                    raise
                # A token lasts 24 hours, and the job may have been silent for longer.
                del self._tokens[stream]
                self._since[stream], before = self._restarts.get(stream, (self._since[stream], 0))
                self._again[stream] = self._shown[stream] - before
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
