"""The documents, and the command lines that they show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def shown(page: Path) -> Iterator[str]:
    """Yield the batchreg command lines of a page: indented ones, and those in backquotes."""
    text = page.read_text()
    joined = re.sub(r"\\\n\s*", "", text)
    yield from re.findall(r"(?m)^ {4,}\$? ?(batchreg .*)$", joined)
    yield from re.findall(r"`(batchreg [^`]*)`", " ".join(text.split()))


def words_of(line: str) -> list[str]:
    """Return the words of a command line up to its comment, pipe or redirection."""
    line = re.split(r"\s+#|\s+[>|&]|; | - |\.\.\.", line)[0]
    return [word.strip(",") for word in shlex.split(line)][1:]
