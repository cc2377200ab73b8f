"""The documentation as a site: strict, searchable, and without anything from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.browser import Browser
from pages import ROOT
from real_parts import require

SPHINX = ROOT / ".venv-site" / "bin" / "sphinx-build"


def build(docs: Path, target: Path) -> subprocess.CompletedProcess[str]:
    if not SPHINX.exists():
        pytest.skip("no .venv-site: make site")
    arguments = ["--fail-on-warning", "--keep-going", "--quiet", docs, target]
    return subprocess.run([SPHINX, *arguments], text=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    built = build(ROOT / "docs", target)
    assert (built.returncode, built.stderr) == (0, "")
    return target


def test_nothing_comes_from_elsewhere(site):
    """Neither scripts nor styles, fonts or pictures: links are the only way out."""
    for page in site.glob("*.html"):
        text = page.read_text()
        assert not re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//', text)
        assert not re.findall(r'<link[^>]* href="(?:https?:)?//', text)
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require("browser")
    with Browser() as browser:
        yield browser


def test_search_finds_pages_without_a_server(site, browser):
    """The site is files; so is its index."""
    browser.open(site / "index.html", width=1200)
    browser.call("Page.navigate", url=f"{(site / 'search.html').as_uri()}?q=parked")
    end = time.monotonic() + 20
    found = ""
    while "Search finished" not in found and time.monotonic() < end:
        time.sleep(0.1)
        found = browser.value("document.querySelector('#search-results')?.innerText") or ""
    assert "How it works" in found
    assert "Threat model" in found


@pytest.mark.parametrize("dark", [False, True])
def test_light_or_dark_as_the_system(site, browser, dark):
    """Of a page, and of both pictures."""
    color = "getComputedStyle(document.querySelector('{}')).{}"
    browser.open(site / "index.html", width=1200, dark=dark)
    assert is_dark(browser.value(color.format("body", "backgroundColor"))) == dark
    for name in ("credentials", "fleet"):
        browser.open(ROOT / "docs" / f"{name}.svg", width=800, dark=dark)
        assert is_dark(browser.value(color.format(".ground", "fill"))) == dark
        assert is_dark(browser.value(color.format("text", "fill"))) != dark


def is_dark(color: str) -> bool:
    """Tell whether a color, such as rgb(1, 2, 3), is nearer to black than to white."""
    return sum(map(int, re.findall(r"\d+", color)[:3])) < 3 * 128


def test_broken_links_and_pages_without_a_place_are_errors(tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", docs)
    conf = docs / "conf.py"
    conf.write_text(conf.read_text().replace("Path(__file__).parent.parent", f'Path("{ROOT}")'))
    (docs / "lost.md").write_text("# Lost\n\n[a](missing.md) [b](attach.md#missing)\n")
    built = build(docs, tmp_path / "site")
    assert built.returncode == 1
    for warning in (
        "'missing.md' [myst.xref_missing]",
        "'missing' [myst.xref_missing]",
        "isn't included in any toctree",
    ):
        assert warning in built.stderr, built.stderr
