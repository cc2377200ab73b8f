"""The documentation as a site: strict, and without anything from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pages import ROOT

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


def test_search_finds_a_word_in_each_page_that_has_it(site):
    """The index is a file of the site."""
    index = (site / "searchindex.js").read_text()
    assert "cannotpullimagemanifesterror" in index
    names = re.findall(r'"([\w-]+)"', re.search(r'docnames"?:\[(.*?)\]', index)[1])
    assert sorted(names) == sorted(page.stem for page in (ROOT / "docs").glob("*.md"))


def test_dark_follows_the_system(site):
    assert "prefers-color-scheme: dark" in (site / "index.html").read_text() + "".join(
        style.read_text() for style in site.rglob("furo.css")
    )


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
