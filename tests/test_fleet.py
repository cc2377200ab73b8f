"""A fleet that boots at one moment: the real retry code against a simulated limit."""

from __future__ import annotations

import itertools

import fleet
import pytest
from fleet import Fleet, a_second, simulate

LARGE = 10_000


@pytest.fixture(scope="module", params=[1, 2, 3], ids="seed {}".format)
def large(request: pytest.FixtureRequest) -> Fleet:
    """As many instances as twenty seconds' worth of calls."""
    return simulate(LARGE, seed=request.param)


@pytest.mark.parametrize("size", [1, 10, 100, fleet.RATE])
def test_below_the_limit_nobody_waits(size):
    """One call each, answered at once."""
    small = simulate(size)
    assert (len(small.calls), small.refused) == (size, [])
    assert small.until(1) < 2 * fleet.ANSWER_SECONDS


def test_large_fleet_is_ready_in_twice_the_ideal_time(large):
    """The limit makes it wait, its own pauses must not."""
    assert len(large.ready) == LARGE
    assert large.until(1) <= 2 * large.ideal
    assert large.until(0.99) <= 1.25 * large.ideal


def test_large_fleet_makes_few_calls(large):
    """Every refused call is load on a service that has too much of it."""
    assert len(large.calls) < 5 * LARGE


def test_retries_do_not_come_in_waves(large):
    """After the first moment the calls only get fewer, but for chance."""
    calls = a_second(large.calls)[1:]
    fewest = itertools.accumulate(calls, min)
    assert all(now <= 1.25 * before + 50 for before, now in zip(fewest, calls[1:], strict=False))


def test_service_is_never_idle_while_many_wait(large):
    """A retry that comes too late is capacity lost."""
    refused = a_second(large.refused)
    granted = [calls - refused[second] for second, calls in enumerate(a_second(large.calls)[:15])]
    assert min(granted) >= 0.95 * fleet.RATE


@pytest.mark.parametrize("size", [1_000, 2_000, 5_000])
def test_fleets_of_other_sizes_do_as_well(size):
    """The numbers are not tuned to one size."""
    other = simulate(size)
    assert other.until(1) <= 2 * other.ideal
    assert len(other.calls) < 5 * size


def test_stricter_bucket_changes_little():
    """Nobody has documented how many calls the service lets pass at once."""
    strict = simulate(LARGE, burst=fleet.RATE // 10)
    assert strict.until(1) <= 2 * strict.ideal
    assert len(strict.calls) < 5 * LARGE


def test_the_limit_is_kept():
    """The simulation itself: no more is granted than rate and burst allow."""
    crowd = simulate(2_000)
    assert len(crowd.calls) - len(crowd.refused) == 2_000
    assert crowd.until(1) >= (2_000 - crowd.burst) / crowd.rate


def test_picture_is_fresh():
    """The documentation shows what the code does now: `make bench` draws it."""
    assert fleet.PICTURE.read_text() == fleet.draw(simulate(fleet.SIZES[-1]))
