"""The terminal screens of the documents are what the commands print: one story, run once."""

from __future__ import annotations

import re

import pytest
import record_screens
from pages import NAMES, PAGES
from record_screens import BLOCK, STORY, Screen

SCREENS = {step.name: step for step in STORY if isinstance(step, Screen)}


@pytest.fixture(scope="module")
def recorded() -> dict[str, str]:
    return record_screens.screens()


@pytest.mark.parametrize("name", SCREENS)
def test_screen_is_what_the_command_prints(name, recorded):
    """In each document that shows it. After a change of what is printed: `make docs`."""
    shown = [
        text for page in PAGES for found, text in BLOCK.findall(page.read_text()) if found == name
    ]
    assert shown, f"no page shows {name}"
    for text in shown:
        assert text == recorded[name]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_screen_is_recorded(page):
    """None is typed: what looks like a terminal is between the marks of a screen of the story."""
    text = page.read_text()
    assert {name for name, _ in BLOCK.findall(text)} <= SCREENS.keys()
    typed = BLOCK.sub("", text)
    assert not re.search(r"(?m)^ *\$ |```console|<!-- screen", typed)


def test_what_differs_from_run_to_run_does_not_show():
    """Ids and times; what is the same in one screen stays the same in it."""
    text = (
        "lt-128ea80ce47e178a6 lt-228ea80ce47e178a6 lt-128ea80ce47e178a6\n"
        "17:21:23  RUNNABLE\n17:23:41  SUCCEEDED\n"
        "Secret  changed 2025-01-02 03:04\nby 03:57 at the latest\n"
        "genomics-JobQueue-385a62b08b87 9f8a58d4-4c28-498f-bc4d-d25fc342cfda"
    )
    assert record_screens.steady(text) == (
        "lt-0a1b2c3d4e5f6a700 lt-0a1b2c3d4e5f6a701 lt-0a1b2c3d4e5f6a700\n"
        "09:41:07  RUNNABLE\n09:42:07  SUCCEEDED\n"
        "Secret  changed 2026-11-26 09:41\nby 10:12 at the latest\n"
        "genomics-JobQueue-5769b264d000 2a58d41c-4c28-498f-bc4d-000000000000"
    )
