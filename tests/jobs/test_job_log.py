"""The log and the states of a job, as they are followed."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import example, given
from hypothesis import strategies as st

from batchreg.errors import BatchregError
from batchreg.jobs import batch as jobs
from batchreg.jobs import log as joblog
from batchreg.jobs.log import Line, LogReader


def client(service: str) -> Any:
    return botocore.session.get_session().create_client(
        service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


class Stream:
    """One log stream of CloudWatch's, whose answers are as its documentation allows them.

    A page can hold few lines or none although more follow, and its token is new; the end is where
    the token that was sent comes back. `pages` are the sizes of the next pages, then all that is
    left comes in one. `between` is called before each answer: lines can come between two pages.
    """

    exceptions = client("logs").exceptions

    def __init__(self, pages=(), between=lambda: None) -> None:
        self.lines: list[str] = []
        self.there = True
        self.requests = 0
        self._pages = iter(pages)
        self._between = between
        self._places = {}
        self._names = itertools.count(1)

    def expire(self) -> None:
        """Forget the tokens, as after 24 hours."""
        self._places.clear()

    def get_log_events(self, *, logGroupName, logStreamName, startFromHead, nextToken=None):
        assert logGroupName == "/aws/batch/job"
        assert startFromHead
        self.requests += 1
        assert self.requests < 1000, "it goes on for ever"
        self._between()
        if not self.there:
            raise self.exceptions.ResourceNotFoundException({}, "GetLogEvents")
        if nextToken and nextToken not in self._places:
            raise self.exceptions.InvalidParameterException({}, "GetLogEvents")
        start = self._places.get(nextToken, 0)
        end = start + next(self._pages, len(self.lines))
        events = [{"message": line, "timestamp": 7} for line in self.lines[start:end]]
        if nextToken and start == len(self.lines):
            return {"events": [], "nextForwardToken": nextToken}
        token = f"f/{next(self._names)}"
        self._places[token] = start + len(events)
        return {"events": events, "nextForwardToken": token}


def job(*names: str, status: str = "RUNNING") -> dict[str, Any]:
    *before, last = names or ("one",)
    return {
        "jobId": "j",
        "status": status,
        "container": {"logStreamName": last},
        "attempts": [{"container": {"logStreamName": name}} for name in before],
    }


def texts(lines) -> list[str]:
    return [line.text for line in lines]


@given(
    pages=st.lists(st.integers(0, 3), max_size=30),
    written=st.lists(st.integers(0, 5), max_size=6),
    meanwhile=st.lists(st.integers(0, 2), max_size=30),
    expiries=st.sets(st.integers(0, 6)),
)
@example(pages=[0, 1, 0, 0, 1, 0], written=[2], meanwhile=[], expiries=set())
@example(pages=[1, 1], written=[2, 1], meanwhile=[0, 1], expiries={1})
def test_no_line_is_lost_and_none_comes_twice(pages, written, meanwhile, expiries):
    """However CloudWatch pages, whenever lines come, and though they have equal time stamps."""
    numbers = map(str, itertools.count())
    between = iter(meanwhile)
    stream = Stream(pages, lambda: stream.lines.extend(itertools.islice(numbers, next(between, 0))))
    reader, seen = LogReader(stream), []
    for turn, count in enumerate(written):
        stream.lines.extend(itertools.islice(numbers, count))
        if turn in expiries:
            stream.expire()
        seen += texts(reader.read(job()))
    seen += texts(reader.read(job()))
    assert seen == stream.lines
    assert reader.lines == len(seen)


def test_empty_pages_in_the_middle_are_not_the_end():
    """CloudWatch answers so where a job was silent for long."""
    stream = Stream([2, 0, 0, 0, 1])
    stream.lines = ["a", "b", "c"]
    assert texts(LogReader(stream).read(job())) == ["a", "b", "c"]


def test_end_is_found_with_one_request():
    """A follower polls for hours: nothing new must cost one request, and three pages four."""
    stream = Stream([1, 1, 1])
    stream.lines = ["a", "b", "c"]
    reader = LogReader(stream)
    list(reader.read(job()))
    assert stream.requests == 4
    assert list(reader.read(job())) == []
    assert stream.requests == 5


def test_pages_without_end_end():
    """Of lines that have expired CloudWatch hands out empty pages for ever (boto3 issue 4591)."""
    stream = Stream(itertools.repeat(0))
    stream.lines = ["expired"]
    assert list(LogReader(stream).read(job())) == []
    assert stream.requests == joblog.EMPTY_PAGES


def test_stream_that_is_not_there_yet_is_empty():
    """The first job of an account makes the group, and each job its stream, with its first line."""
    stream = Stream()
    stream.there = False
    reader = LogReader(stream)
    assert list(reader.read(job())) == []
    stream.there, stream.lines = True, ["a"]
    assert list(reader.read(job())) == [Line("a", 7)]


def test_job_without_a_stream_costs_no_request():
    """Before it runs, a job has none."""
    stream = Stream()
    reader = LogReader(stream)
    assert list(reader.read({"status": "RUNNABLE", "container": {}})) == []
    assert list(reader.drain({"status": "FAILED"}, sleep=pytest.fail)) == []
    assert stream.requests == 0


def test_streams_of_all_attempts_come_in_order():
    """Each attempt has its own; the last is named twice once the job has ended."""
    assert joblog.streams(job("first", "second")) == ["first", "second"]
    assert joblog.streams(job("first", "second", "second")) == ["first", "second"]
    assert joblog.streams({"attempts": [{"container": {}}, {}]}) == []


class Clock:
    """Time that passes in `sleep` alone, and what happens meanwhile."""

    def __init__(self, **happens) -> None:
        self.now, self._happens = (
            0.0,
            sorted(
                (float(time.removeprefix("at_").replace("_", ".")), event)
                for time, event in happens.items()
            ),
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._happens and self._happens[0][0] <= self.now:
            self._happens.pop(0)[1]()


def test_last_lines_may_come_after_the_end():
    """The log driver sends its rest as the container goes, and CloudWatch takes its time."""
    stream = Stream()
    stream.lines = ["a"]
    clock = Clock(at_1_5=lambda: stream.lines.append("b"), at_3=lambda: stream.lines.append("c"))
    reader = LogReader(stream)
    assert texts(reader.read(job())) == ["a"]
    assert texts(reader.drain(job(), clock.sleep)) == ["b", "c"]
    assert clock.now == 5


def test_first_line_after_the_end_is_waited_for_longer():
    """A job of half a second may have ended before its log group exists."""
    stream = Stream()
    stream.there = False
    clock = Clock(at_4=lambda: (stream.lines.append("a"), setattr(stream, "there", True)))
    assert texts(LogReader(stream).drain(job(), clock.sleep)) == ["a"]
    assert clock.now == 6


def test_silent_job_ends_the_wait():
    """`true` has nothing to say, ever."""
    clock = Clock()
    assert list(LogReader(Stream()).drain(job(), clock.sleep)) == []
    assert clock.now == 5


# --- Following ---


def batch_that_says(*answers: Any) -> Any:
    """Return a client whose DescribeJobs gives these in turn, and the last for ever."""
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))

    def describe_jobs(jobs):
        answer = next(turns)
        if isinstance(answer, Exception):
            raise answer
        return {"jobs": [answer] if answer else []}

    return SimpleNamespace(describe_jobs=describe_jobs)


def followed(*answers: Any, stream: Stream | None = None, sleep=lambda _: None, **options) -> list:
    return list(
        jobs.follow(batch_that_says(*answers), stream or Stream(), "j", sleep=sleep, **options)
    )


def waiting(reason: str = "") -> dict[str, Any]:
    return {"jobId": "j", "status": "RUNNABLE", "statusReason": reason, "container": {}}


ENDED = {"jobId": "j", "status": "FAILED", "statusReason": "over", "container": {}}


def test_each_state_and_reason_is_told_once():
    """A job that waits for an hour says so once, and again when its reason changes."""
    seen = followed(waiting(), waiting(), waiting("full"), waiting("full"), ENDED)
    assert [(item.status, item.reason) for item in seen[:-1]] == [
        ("RUNNABLE", ""),
        ("RUNNABLE", "full"),
        ("FAILED", "over"),
    ]


def test_last_is_the_job_itself():
    """With its exit code."""
    assert followed(waiting(), ENDED)[-1] == ENDED


def test_log_comes_before_the_state_that_ends_it():
    """Nothing is left to come once the end is told."""
    stream = Stream()
    stream.lines = ["a"]
    seen = followed(job(), job(status="SUCCEEDED"), stream=stream)
    assert [getattr(item, "text", getattr(item, "status", "job")) for item in seen] == [
        "RUNNING",
        "a",
        "SUCCEEDED",
        "job",
    ]


def test_last_lines_are_waited_for_before_the_end_is_told():
    """They may reach CloudWatch after Batch knows that the job has ended."""
    stream = Stream()
    clock = Clock(at_1=lambda: stream.lines.append("late"))
    seen = followed(job(status="SUCCEEDED"), stream=stream, sleep=clock.sleep)
    assert [getattr(item, "text", getattr(item, "status", "job")) for item in seen] == [
        "late",
        "SUCCEEDED",
        "job",
    ]


def test_array_is_counted_per_state_in_the_order_of_a_jobs_life():
    """Zeros are left out."""
    array = {
        **waiting(),
        "status": "PENDING",
        "arrayProperties": {
            "size": 6,
            "statusSummary": {"SUCCEEDED": 3, "RUNNING": 2, "FAILED": 0, "SUBMITTED": 1},
        },
    }
    assert followed(array, ENDED)[0].children == (
        ("SUBMITTED", 1),
        ("RUNNING", 2),
        ("SUCCEEDED", 3),
    )


AWAY = EndpointConnectionError(endpoint_url="https://batch.example")
THROTTLED = ClientError({"Error": {"Code": "TooManyRequestsException"}}, "DescribeJobs")
DENIED = ClientError({"Error": {"Code": "AccessDeniedException"}}, "DescribeJobs")


@pytest.mark.parametrize("error", [AWAY, THROTTLED])
def test_network_that_is_away_for_a_while_ends_nothing(error):
    """The job goes on, and so does who follows it."""
    seen = followed(waiting(), error, error, waiting(), ENDED)
    assert [item.status for item in seen[:-1]] == ["RUNNABLE", "FAILED"]


def test_no_line_is_lost_while_the_network_is_away():
    """Nor told twice: reading goes on where it was."""
    errors = iter([None, AWAY, None])

    def between() -> None:
        if error := next(errors, None):
            raise error

    stream = Stream([1, 1], between)
    stream.lines = ["a", "b"]
    seen = followed(job(), job(), job(status="SUCCEEDED"), stream=stream)
    assert texts(item for item in seen if isinstance(item, Line)) == ["a", "b"]


def test_network_that_stays_away_is_a_failure():
    """After a minute."""
    clock = Clock()
    with pytest.raises(EndpointConnectionError):
        followed(waiting(), AWAY, sleep=clock.sleep)
    assert 60 <= clock.now < 70


def test_short_outages_do_not_add_up():
    """A job of days may see many."""
    seen = followed(*[*[AWAY] * 15, waiting()] * 5, ENDED)
    assert seen[-1] == ENDED


def test_refusal_is_a_failure_at_once():
    """Waiting does not give a permission."""
    with pytest.raises(ClientError, match="AccessDenied"):
        followed(DENIED, sleep=pytest.fail)


def test_unknown_job_is_a_failure():
    """Batch answers with an empty list, and forgets jobs after a week."""
    with pytest.raises(BatchregError, match="There is no job j in this region"):
        followed(None)


def test_polls_slow_down():
    """Quick at first, for short jobs, then every three seconds, for AWS's request limits."""
    pauses: list[float] = []
    followed(*[waiting()] * 20, ENDED, sleep=pauses.append)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.2, 3)
