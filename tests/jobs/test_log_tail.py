"""The end of a log, read backwards, and what comes after it."""

from __future__ import annotations

from itertools import count

import botocore.session
from hypothesis import given
from hypothesis import strategies as st

from batchreg.jobs.log import LogReader


def client():
    return botocore.session.get_session().create_client(
        "logs", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


class Stream:
    """A log stream of CloudWatch's, whose pages may be smaller than what was asked for.

    A token holds a direction and a place, and is good until `expire`. At an end the token that was
    sent comes back.
    """

    exceptions = client().exceptions

    def __init__(self, times: list[int], pages: list[int]) -> None:
        self.lines = [(time, str(number)) for number, time in enumerate(times)]
        self._pages = iter(pages)
        self._names = count()
        self._age = 0
        self.asked = 0

    def expire(self) -> None:
        self._age += 1

    def get_log_events(
        self, *, logGroupName, logStreamName, startFromHead, startTime=0, limit=10_000, nextToken=""
    ):
        least = next((n for n, (time, _) in enumerate(self.lines) if time >= startTime), None)
        least = len(self.lines) if least is None else least
        place = least if startFromHead else len(self.lines)
        if nextToken:
            age, forward, text, _ = nextToken.split("/")
            assert (forward == "f") == startFromHead
            if int(age) != self._age:
                raise self.exceptions.InvalidParameterException({}, "GetLogEvents")
            place = max(int(text), least)
        size = min(limit, next(self._pages, limit))
        first = place if startFromHead else max(least, place - size)
        last = min(len(self.lines), place + size) if startFromHead else place
        page = self.lines[first:last]
        self.asked += len(page)
        tokens = {
            name: f"{self._age}/{name}/{at}/{next(self._names)}"
            for name, at in (("f", last), ("b", first))
        }
        if nextToken and place == (len(self.lines) if startFromHead else least):
            tokens["f" if startFromHead else "b"] = nextToken
        return {
            "events": [{"timestamp": time, "message": text} for time, text in page],
            "nextForwardToken": tokens["f"],
            "nextBackwardToken": tokens["b"],
        }


JOB = {"jobId": "j", "container": {"logStreamName": "one"}}
TIMES = st.lists(st.integers(1, 5), max_size=12).map(sorted)


@given(
    times=TIMES,
    more=TIMES,
    most=st.integers(1, 6),
    pages=st.lists(st.integers(0, 3), max_size=9),
    expires=st.booleans(),
    since=st.integers(0, 6),
)
def test_last_lines_come_once_and_what_follows_after_them(times, more, most, pages, expires, since):
    """However CloudWatch pages, though lines have equal times, and though the token is lost."""
    stream = Stream(times, pages)
    recent = [text for time, text in stream.lines if time >= since]
    reader = LogReader(stream, since)
    assert [line.text for line in reader.tail(JOB, most)] == recent[-most:]
    later = [(time + 5, f"later {number}") for number, time in enumerate(more)]
    stream.lines += later
    if expires:
        stream.expire()
    expected = [text for time, text in later if time >= since]
    assert [line.text for line in reader.read(JOB)] == expected
    assert list(reader.read(JOB)) == []
    assert reader.lines == len(recent[-most:]) + len(expected)


def test_rest_of_a_long_log_is_not_asked_for():
    """A job of days may have said a gigabyte."""
    stream = Stream(list(range(1, 5000)), [])
    assert len(LogReader(stream).tail(JOB, 10)) == 10
    assert stream.asked == 10


def test_lines_of_an_earlier_attempt_count_as_well():
    """The last attempt may have said less than was asked for."""
    streams = {"one": Stream([1, 2, 3], []), "two": Stream([4], [])}

    class Logs:
        exceptions = Stream.exceptions

        def get_log_events(self, **request):
            return streams[request["logStreamName"]].get_log_events(**request)

    job = {
        "attempts": [{"container": {"logStreamName": "one"}}],
        "container": {"logStreamName": "two"},
    }
    reader = LogReader(Logs())
    assert [line.time for line in reader.tail(job, 3)] == [2, 3, 4]
    assert list(reader.read(job)) == []
    reader = LogReader(Logs())
    assert [line.time for line in reader.tail(job, 1)] == [4]
    assert list(reader.read(job)) == []
