"""Write docs/doctor.png: the page of `doctor --html` for a fault, as Chromium shows it."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import zlib
from pathlib import Path

from lab.browser import Browser
from lab.parts import missing
from write_troubleshooting import FAULTS, ROOT, changed

from batchreg.doctor.facts import Facts
from batchreg.doctor.findings import diagnose
from batchreg.doctor.page.html import page

PICTURE = ROOT / "docs" / "doctor.png"
FAULT = "nat-gateway-without-a-way-out"
WIDTH = 860  # CSS pixels; GitHub shows a page in 838 to 1012
# Below the drawings the page lists what was looked at, which is the same in every picture.
END = "[...document.querySelectorAll('section')].at(-1).getBoundingClientRect().top + scrollY"
AFTER_HEADER = 33  # bytes: a PNG's signature and its first chunk


def facts() -> Facts:
    return changed(json.loads((FAULTS / f"{FAULT}.json").read_text())["change"])


def drawn() -> str:
    """Return the page that is in the picture."""
    return page(facts(), diagnose(facts()))


def picture(text: str) -> bytes:
    """Return the upper part of a page as a PNG, which carries the page's `mark`."""
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        file = Path(folder) / "page.html"
        file.write_text(text, encoding="utf-8")
        browser.open(file, width=WIDTH)
        png = browser.picture(height=round(browser.value(END)))
    return png[:AFTER_HEADER] + mark(text) + png[AFTER_HEADER:]


def mark(text: str) -> bytes:
    """Return a chunk of a PNG that tells which page is in it: www.w3.org/TR/png/#11tEXt."""
    chunk = b"tEXtSource\0sha256:" + hashlib.sha256(text.encode()).hexdigest().encode()
    return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))


if __name__ == "__main__":
    if reason := missing(["browser"]):
        raise SystemExit(f"The picture of doctor's page stays as it is: {reason}")
    PICTURE.write_bytes(picture(drawn()))
