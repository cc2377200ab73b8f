"""How long the program waits between two tries, and in all."""

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchreg.registry_login import Refused, read_all


class Clock:
    """A clock that only sleeping moves, and reading where a test says so."""

    def __init__(self) -> None:
        self.now, self.sleeps = 1000.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def wait(read: Callable, ids=("a",), deadline: float = 300, spread: Callable = lambda: 1.0):
    clock = Clock()
    result = read_all(
        ids, read(clock) if isinstance(read, type) else read, deadline, clock, clock.sleep, spread
    )
    return result, clock


def broken(secret_id: str, seconds: float) -> str:
    raise OSError("away")


def test_the_first_attempt_comes_at_once():
    """Most boots need no waiting at all."""
    (texts, problems), clock = wait(lambda secret_id, seconds: "text")
    assert (texts, problems, clock.sleeps) == ({"a": "text"}, {}, [])


# What a pause can be at most, round after round.
CEILINGS = [min(3 * 1.3**number, 10) for number in range(100)]


def test_the_pause_grows_up_to_ten_seconds():
    """Exponential, and still in time when the cause has gone."""
    _, clock = wait(broken)
    assert clock.sleeps[:8] == pytest.approx(CEILINGS[:8])
    assert CEILINGS[5:] == [10] * 95


@given(seed=st.integers())
@settings(deadline=None)
def test_no_pause_is_longer_than_its_ceiling(seed):
    """With jitter from nothing to the ceiling."""
    _, clock = wait(broken, spread=random.Random(seed).random)
    assert all(
        0 <= pause <= ceiling + 1e-9 for pause, ceiling in zip(clock.sleeps, CEILINGS, strict=False)
    )


def test_the_pause_is_spread_from_nothing_on():
    """A fleet that booted in one moment must not come back in one."""
    _, clock = wait(broken, spread=lambda: 0.25)
    assert clock.sleeps[:3] == pytest.approx([ceiling / 4 for ceiling in CEILINGS[:3]])


@given(
    deadline=st.floats(0, 400),
    seed=st.integers(),
    count=st.integers(1, 3),
    durations=st.lists(st.floats(0, 30), min_size=1),
)
@settings(deadline=None)
def test_it_stops_by_the_deadline(deadline, seed, count, durations):
    """Whatever an attempt takes: no later than that, but for one last second a secret."""
    clock, duration = Clock(), itertools.cycle(durations)

    def read(secret_id: str, seconds: float) -> str:
        clock.now += min(next(duration), seconds)
        raise OSError("timed out")

    ids = [str(number) for number in range(count)]
    chance = random.Random(seed).random
    _, problems = read_all(ids, read, deadline, clock, clock.sleep, lambda: chance() + 0.001)
    assert list(problems) == ids
    assert clock.now - 1000 <= deadline + count


def test_a_healthy_secret_does_not_wait_for_a_broken_one():
    """Its login is at hand after the first round, and it is not read again."""
    asked = []

    def read(secret_id: str, seconds: float) -> str:
        asked.append(secret_id)
        if secret_id == "bad":
            raise OSError("away")
        return "text"

    (texts, problems), _ = wait(read, ids=("bad", "good"), deadline=7)
    assert (texts, problems, asked) == (
        {"good": "text"},
        {"bad": "away"},
        ["bad", "good", "bad", "bad"],
    )


def test_a_refusal_is_final():
    """A missing secret stays missing."""
    asked = []

    def read(secret_id: str, seconds: float) -> str:
        asked.append(secret_id)
        raise Refused("gone")

    (texts, problems), clock = wait(read)
    assert (texts, problems, asked, clock.sleeps) == ({}, {"a": "gone"}, ["a"], [])


def test_an_attempt_gets_no_more_time_than_there_is():
    """A hanging request must not outlive the deadline."""
    given_seconds = []

    def read(secret_id: str, seconds: float) -> str:
        given_seconds.append(seconds)
        raise OSError("away")

    wait(read, deadline=10)
    assert given_seconds == pytest.approx([10, 7, 3.1])


def test_a_reason_is_said_when_it_changes(capsys):
    """The console shows progress, not repetition."""
    reasons = iter(["no role", "no role", "denied", "denied", "no role"])

    def read(secret_id: str, seconds: float) -> str:
        raise OSError(next(reasons))

    wait(read, deadline=20)
    assert capsys.readouterr().err.splitlines() == [
        f"batchreg: waiting for a: {reason}" for reason in ("no role", "denied", "no role")
    ]
