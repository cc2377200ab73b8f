"""doctor's page in a real browser: on a phone and a wide screen, in light and in dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from lab.browser import Browser
from real_parts import require
from write_troubleshooting import FAULTS, changed

from batchreg.doctor.findings import diagnose
from batchreg.doctor.page.html import page

LONG = "x" * 120
HOSTILE = "<script>document.title = 'owned'</script><img src='x' onerror='document.title = 1'/>"
CHANGES: dict[str, dict[str, Any]] = {
    "healthy": {},
    "hostile": {
        "queues.0.name": LONG,
        "queues.0.state": "DISABLED",
        "secrets.0.name": f"{LONG}{HOSTILE}",
        "secrets.0.deleted": HOSTILE,
        "jobs.0.name": HOSTILE,
        "hosts": [],
        "subnets.1.routes": [{"destination": "0.0.0.0/0", "target": "tgw-0a1b2c3d4e5f67890"}],
        "not_looked_at": [{"what": LONG, "permission": "ec2:DescribeRouteTables", "reason": LONG}],
    },
    **{
        name: json.loads((FAULTS / f"{name}.json").read_text())["change"]
        for name in ("endpoint-groups-admit-nothing", "no-credentials-for-registry", "no-route")
    },
}

# The texts and marks of a page, each with its color and what it stands on.
COLORS = """
[...document.querySelectorAll('body *')].flatMap(one => {
  const style = getComputedStyle(one), shape = one.matches('.dot, .stop, .ring, .empty');
  const own = [...one.childNodes].some(node => node.nodeType == 3 && node.data.trim());
  if (style.display == 'none' || one.closest('title, desc') || !(own || shape)) return [];
  if (!one.checkVisibility()) return [];
  let under = one;
  const ground = () => getComputedStyle(under).backgroundColor;
  while (ground() == 'rgba(0, 0, 0, 0)') under = under.parentElement;
  const painted = one.matches('.ring, .empty') ? style.stroke
    : one instanceof SVGElement ? style.fill : style.color;
  return [{what: one.getAttribute('class') || one.tagName, shape, painted, ground: ground()}];
})
"""
OUTSIDE = """
[...document.querySelectorAll('main *')].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(one => one.outerHTML.slice(0, 200))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require("browser")
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, change in CHANGES.items():
        facts = changed(change)
        (folder / f"{name}.html").write_text(page(facts, diagnose(facts)))
    return {name: folder / f"{name}.html" for name in CHANGES}


def luminance(color: str) -> float:
    """Return the relative luminance of a color like "rgb(1, 2, 3)".

    Source: www.w3.org/TR/WCAG22/#dfn-relative-luminance.
    """
    parts = [int(part) / 255 for part in color.strip("rgb()").split(", ")]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("name", "width"), [*product(CHANGES, (360, 1280)), ("hostile", 720), ("hostile", 320)]
)
def test_page_fits_and_can_be_read(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    """Nothing is wider than the screen, and each color stands out from its ground, light or dark.

    Contrast: www.w3.org/TR/WCAG22/#contrast-minimum, and #non-text-contrast for the marks.
    """
    grounds = []
    for dark in (False, True):
        browser.open(pages[name], width=width, dark=dark)
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value(OUTSIDE) == []
        colors = browser.value(COLORS)
        assert len(colors) > 60
        for one in colors:
            least = 3 if one["shape"] else 4.5
            assert contrast(one["painted"], one["ground"]) >= least, one
        grounds.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    light, dark_ground = map(luminance, grounds)
    assert light > 0.8
    assert dark_ground < 0.05


def test_broken_hop_is_seen_at_first_glance(browser: Browser, pages: dict[str, Path]) -> None:
    """On the first screen of a laptop, larger than all other marks, and with a name below it."""
    browser.open(pages["endpoint-groups-admit-nothing"], width=1280, height=900)
    box = "document.querySelector('.{}').getBoundingClientRect()"
    stop, dot = (browser.value(f"{box.format(kind)}.height") for kind in ("stop", "dot"))
    assert stop >= 2 * dot
    assert browser.value(f"{box.format('stop')}.bottom") < 900
    label = "document.querySelector('.broken .id')"
    assert browser.value(f"{label}.textContent") == "vpce-ecs"
    assert browser.value(f"{label}.getBoundingClientRect().height") > 8


def test_nothing_of_another_runs_or_loads(browser: Browser, pages: dict[str, Path]) -> None:
    """A job may be called like a script, and the page is opened from an e-mail."""
    browser.open(pages["hostile"], width=360)
    assert browser.value("document.title").endswith(" - batchreg doctor")
    assert browser.value("document.querySelectorAll('script, img').length") == 0
    assert browser.value("performance.getEntriesByType('resource').length") == 0
    assert HOSTILE in browser.value("document.body.textContent")


def test_fix_is_copied_as_one_line(browser: Browser, pages: dict[str, Path]) -> None:
    """One click selects the whole command, and nothing else."""
    name = "endpoint-groups-admit-nothing"
    browser.open(pages[name], width=360, height=3000)
    middle = browser.value(
        "(box => [box.x + box.width / 2, box.y + 12])"
        "(document.querySelector('.fix').getBoundingClientRect())"
    )
    for kind in ("mousePressed", "mouseReleased"):
        where = dict(zip("xy", middle, strict=True))
        browser.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)
    (finding,) = diagnose(changed(CHANGES[name]))
    assert browser.value("getSelection().toString()") == finding.fix[0]
