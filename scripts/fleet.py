"""A fleet that boots at one moment, against a Secrets Manager with a rate limit: a simulation.

Each instance runs the real `registry_login.read_all`, in a greenlet of its own: whenever it sleeps
or waits for an answer, the next instance's turn has come, and the clock jumps there.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from greenlet import getcurrent, greenlet
from tables import Table, show

from batchreg import registry_login
from batchreg.render.userdata import BOOT_DEADLINE_SECONDS

PICTURE = Path(__file__).parent.parent / "docs" / "fleet.svg"

SIZES = (1, 10, 100, 500, 1_000, 2_000, 5_000, 10_000)
# Calls a second that the service grants. AWS's own quota is twenty times as high, and shared by
# all that an account does (docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits).
RATE = 500
# An answer takes this long, give or take half of it.
ANSWER_SECONDS = 0.03


@dataclass(frozen=True)
class Fleet:
    """What happened, in seconds since the boot, in ascending order."""

    size: int
    rate: int
    burst: int
    ready: list[float] = field(repr=False)  # an instance has its credentials
    calls: list[float] = field(repr=False)
    refused: list[float] = field(repr=False)

    def until(self, share: float) -> float:
        """Return when this share of the instances has credentials, infinity if it never has."""
        count = math.ceil(self.size * share)
        return self.ready[count - 1] if len(self.ready) >= count else math.inf

    @property
    def ideal(self) -> float:
        """How long the service takes to answer each instance once."""
        return self.size / self.rate


class _World:
    """The clock, what is going to happen, and the service's token bucket."""

    def __init__(self, rate: int, burst: int, seed: int) -> None:
        self.now = 0.0
        self.rate, self.burst, self.tokens, self.filled = rate, burst, float(burst), 0.0
        self.spread = random.Random(seed).random
        self.calls: list[float] = []
        self.refused: list[float] = []
        self._scheduler = getcurrent()
        self._events: list[tuple[float, int, greenlet]] = []
        self._count = 0

    def at(self, time: float, whom: greenlet) -> None:
        self._count += 1  # two events at one time keep their order
        heapq.heappush(self._events, (time, self._count, whom))

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.at(self.now + seconds, getcurrent())
        self._scheduler.switch()

    def read(self, secret_id: str, _seconds: float) -> str:
        """Answer as SecretsManager.read does, which sends the request half an answer's time ago."""
        half = ANSWER_SECONDS * (0.5 + self.spread()) / 2
        self.sleep(half)
        self.tokens = min(self.burst, self.tokens + (self.now - self.filled) * self.rate)
        self.filled = self.now
        granted = self.tokens >= 1
        self.tokens -= granted
        self.calls.append(self.now)
        if not granted:
            self.refused.append(self.now)
        self.sleep(half)
        if not granted:
            raise OSError("HTTP 400 ThrottlingException")
        return f"text of {secret_id}"

    def run(self) -> None:
        # What each instance would say on its console.
        with contextlib.redirect_stderr(io.StringIO()):
            while self._events:
                self.now, _, whom = heapq.heappop(self._events)
                whom.switch()


def simulate(size: int, *, rate: int = RATE, burst: int | None = None, seed: int = 1) -> Fleet:
    """Boot `size` instances at one moment; the same arguments give the same result.

    The service grants `rate` calls a second, and `burst` at once: by default a second's worth.
    """
    burst = rate if burst is None else burst
    world = _World(rate, burst, seed)
    ready: list[float] = []

    def boot() -> None:
        texts, _ = registry_login.read_all(
            ["secret"], world.read, BOOT_DEADLINE_SECONDS, world.clock, world.sleep, world.spread
        )
        if texts:
            ready.append(world.now)

    for _ in range(size):
        world.at(0, greenlet(boot))
    world.run()
    return Fleet(size, rate, burst, ready, world.calls, world.refused)


def compare(sizes: tuple[int, ...] = SIZES) -> Table:
    """Return a table with a row for each size of a fleet."""
    table: Table = [("instances", "half", "99 %", "all", "ideal", "calls", "each", "refused")]
    for size in sizes:
        fleet = simulate(size)
        table.append(
            (
                f"{size:,}",
                *(f"{fleet.until(share):.1f} s" for share in (0.5, 0.99, 1)),
                f"{fleet.ideal:.1f} s",
                f"{len(fleet.calls):,}",
                f"{len(fleet.calls) / size:.2f}",
                f"{len(fleet.refused):,}",
            )
        )
    return table


def a_second(times: list[float]) -> list[int]:
    """Return how many of `times` fall into each second."""
    counts = Counter(map(int, times))
    return [counts[second] for second in range(max(counts, default=-1) + 1)]


# The picture, in pixels.
WIDTH, LEFT, RIGHT = 760, 70, 740
# Its colors are classes, so that it is dark where the reader's system is.
INK, LIMIT, OURS, GRID = "ink", "limit", "ours", "grid"
LIGHT = {"ground": "#ffffff", INK: "#333333", LIMIT: "#c0392b", OURS: "#1f6fb2", GRID: "#e4e4e4"}
DARK = {"ground": "#14171a", INK: "#dde3e8", LIMIT: "#ff8a7a", OURS: "#6cb4ee", GRID: "#333a41"}
DASHES = f'class="{LIMIT}" stroke-width="1.5" stroke-dasharray="6 4"'


@dataclass(frozen=True)
class Panel:
    """A diagram over `seconds`; `scale` turns a value into its share of the height."""

    top: int
    bottom: int
    seconds: int
    scale: Callable[[float], float]

    def x(self, second: float) -> float:
        return LEFT + (RIGHT - LEFT) * second / self.seconds

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * self.scale(value)

    def grid(self, title: str, values: Iterable[int]) -> Iterator[str]:
        """Yield the title, a line for each of the values, and one for each eighth of the time."""
        yield _text(LEFT, self.top - 7, title)
        for value in values:
            yield _line(LEFT, self.y(value), RIGHT, self.y(value), f'class="{GRID}"')
            yield _text(LEFT - 8, self.y(value) + 4, f"{value:,}", anchor="end")
        for second in range(0, self.seconds + 1, max(self.seconds // 8, 1)):
            yield _line(self.x(second), self.top, self.x(second), self.bottom, f'class="{GRID}"')
            yield _text(self.x(second), self.bottom + 16, f"{second} s", anchor="middle")


def draw(fleet: Fleet) -> str:
    """Return the fleet's curve as an SVG picture, with the limit drawn in."""
    seconds = math.ceil(2 * fleet.ideal)
    powers = math.ceil(math.log10(max(a_second(fleet.calls))))
    above = Panel(52, 290, seconds, lambda instances: instances / fleet.size)
    below = Panel(350, 480, seconds, lambda calls: math.log10(max(calls, 1)) / powers)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 530" '
            'font-family="Helvetica, Arial, sans-serif" font-size="12">',
            "<style>",
            *_rules(LIGHT),
            "@media (prefers-color-scheme: dark) {",
            *_rules(DARK),
            "}",
            "</style>",
            '<rect class="ground" width="100%" height="100%"/>',
            _text(
                LEFT,
                24,
                f"{fleet.size:,} instances boot at the same moment, and Secrets Manager allows "
                f"{fleet.rate} calls per second",
                size=13,
            ),
            *above.grid("instances with credentials", range(0, fleet.size + 1, fleet.size // 4)),
            *_curve(fleet, above),
            *below.grid("calls in each second", (10**power for power in range(powers + 1))),
            *_bars(fleet, below),
            _text(
                LEFT,
                520,
                f"{len(fleet.calls) / fleet.size:.1f} calls per instance; "
                f"{len(fleet.refused):,} of {len(fleet.calls):,} were refused",
            ),
            "</svg>\n",
        ]
    )


def _rules(colors: dict[str, str]) -> Iterator[str]:
    """Yield CSS: lines and shapes of a class in its color."""
    for name, color in colors.items():
        yield f"line.{name}, polyline.{name} {{ stroke: {color} }}"
        yield f"rect.{name}, circle.{name}, text.{name} {{ fill: {color} }}"


def _curve(fleet: Fleet, panel: Panel) -> Iterator[str]:
    x, y = panel.x, panel.y
    shares = [number / 100 for number in range(1, 101)]
    points = " ".join(
        f"{x(fleet.until(share)):.1f},{y(share * fleet.size):.1f}" for share in shares
    )
    yield (
        f'<polyline points="{x(0):.1f},{y(0):.1f} {points}" fill="none" class="{OURS}" '
        'stroke-width="2.5"/>'
    )
    full = (fleet.size - fleet.burst) / fleet.rate
    yield _line(x(0), y(fleet.burst), x(full), y(fleet.size), DASHES)
    yield _text(x(full / 2) + 8, y(fleet.size / 2) + 24, "the limit", LIMIT)
    for share, name, down in ((0.5, "half", -6), (0.99, "99 %", 36), (1.0, "all", 18)):
        left, height = x(fleet.until(share)), y(share * fleet.size)
        yield f'<circle cx="{left:.1f}" cy="{height:.1f}" r="4" class="{OURS}"/>'
        yield _text(
            left + (8 if share > 0.5 else -8),
            height + down,
            f"{name}: {fleet.until(share):.1f} s",
            OURS,
            anchor="start" if share > 0.5 else "end",
        )


def _bars(fleet: Fleet, panel: Panel) -> Iterator[str]:
    for second, calls in enumerate(a_second(fleet.calls)):
        top, width = panel.y(calls), panel.x(1) - panel.x(0) - 2
        yield (
            f'<rect x="{panel.x(second) + 1:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{panel.bottom - top:.1f}" class="{OURS}" fill-opacity="0.7"/>'
        )
    yield _line(LEFT, panel.y(fleet.rate), RIGHT, panel.y(fleet.rate), DASHES)
    yield _text(RIGHT - 4, panel.y(fleet.rate) - 5, f"the limit: {fleet.rate}", LIMIT, anchor="end")


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _text(
    x: float, y: float, words: str, color: str = INK, *, anchor: str = "start", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{color}" text-anchor="{anchor}" '
        f'font-size="{size}">{words}</text>'
    )


def main() -> None:
    show(compare())
    PICTURE.write_text(draw(simulate(SIZES[-1])), encoding="utf-8")
    print(PICTURE)


if __name__ == "__main__":
    main()
