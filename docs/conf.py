"""The documentation as a site, from the pages that are also read on GitHub: `make site`.

Sphinx builds it with `-W`: a broken link, or a page that is not in NAVIGATION, is an error.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

# Captions and pages, in the order in which a reader needs them. A list in conf.py instead of a
# directive on the first page, because GitHub shows a directive as text.
NAVIGATION = {
    "Start": ["getting-started", "ways"],
    "Use": ["attach", "cache", "credentials", "engines"],
    "Look up": ["reference", "troubleshooting", "runbooks", "permissions"],
    "Understand": ["how-it-works", "threat-model", "migrating"],
}

project = "batchreg"
author = "The batchreg contributors"
ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "batchreg" / "__init__.py"
(version,) = re.findall(r'__version__ = "(.+)"', SOURCE.read_text())
html_title = f"batchreg {version}"
html_theme = "furo"  # light or dark as the system says; its fonts are the system's
html_copy_source = False
html_show_copyright = False
html_use_index = False  # of terms, which the pages do not mark; the search finds words
extensions = ["myst_parser"]
myst_heading_anchors = 4  # the anchors that GitHub makes
highlight_language = "none"  # of the indented blocks


def navigate(_: Sphinx, name: str, source: list[str]) -> None:
    """Add the navigation to the first page."""
    if name != "index":
        return
    for caption, pages in NAVIGATION.items():
        listed = "\n".join(pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", navigate)
