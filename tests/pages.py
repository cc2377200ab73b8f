"""The documents, and the command lines that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from record_screens import BLOCK

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def typed(page: Path) -> Iterator[str]:
    """Yield the batchreg command lines of a page that are not on a screen."""
    yield from _shown(BLOCK.sub("", page.read_text()))


def shown(page: Path) -> Iterator[str]:
    """Yield the batchreg command lines of a page: on screens, indented ones, those in backquotes."""
    yield from _shown(page.read_text())


def _shown(text: str) -> Iterator[str]:
    joined = re.sub(r"\\\n\s*", "", text)
    yield from re.findall(r"(?m)^\$ (batchreg .*)$", joined)
    text = BLOCK.sub("", text)
    yield from re.findall(r"(?m)^ {4,}\$? ?(batchreg .*)$", joined)
    yield from re.findall(r"`(batchreg [^`]*)`", " ".join(text.split()))


def words_of(line: str) -> list[str]:
    """Return the words of a command line up to its comment, pipe or redirection."""
    line = re.split(r"\s+#|\s+[>|&]|; | - |\.\.\.", line)[0]
    return [word.strip(",") for word in shlex.split(line)][1:]
