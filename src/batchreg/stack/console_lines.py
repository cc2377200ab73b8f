"""What batchreg's program says on an instance's console, and the state that this means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

# The console holds the boot's messages of everything; a line of ours follows a time stamp or a
# process name, and is the program's own text without any part of a secret.
LINE = re.compile(r"\bbatchreg: ([^\r\n]{1,300})")

PARKED, RELEASED = "parked: ", "released"
WITHOUT = "continuing without credentials: "
POWERING_OFF = "powering off"
HAS_CREDENTIALS = re.compile(r"\bhas the (logins|credentials)\b")


class State(StrEnum):
    """Where an instance is on its way to credentials, as far as its console tells."""

    UNKNOWN = "unknown"  # it has said nothing
    READY = "ready"  # it has credentials
    WAITING = "waiting"  # it has said something, but not that it has any
    WITHOUT = "without credentials"  # it takes jobs, but cannot pull from the registry
    PARKED = "parked"  # it has joined the cluster, and takes no jobs until it has some
    POWERED_OFF = "powered off"  # it has given up


def lines(output: str, most: int = 10) -> tuple[str, ...]:
    """Return our last lines in a console's output, the newest last, each only once."""
    newest_first = dict.fromkeys(reversed(LINE.findall(output)))
    return tuple(newest_first)[:most][::-1]


def state_of(said: Sequence[str]) -> tuple[State, str]:
    """Return an instance's state, and the line that tells why; `said` are lines, oldest first.

    For PARKED and WITHOUT it is the program's own reason, without its prefix.
    """
    state, why = State.UNKNOWN, ""
    for line in said:
        if line.startswith(PARKED):
            state, why = State.PARKED, line.removeprefix(PARKED)
        elif line.startswith(WITHOUT):
            state, why = State.WITHOUT, line.removeprefix(WITHOUT)
        elif line.startswith(RELEASED) or HAS_CREDENTIALS.search(line):
            state, why = State.READY, line
        elif POWERING_OFF in line:
            state = State.POWERED_OFF
            why = why or line
        elif state in (State.UNKNOWN, State.WAITING, State.POWERED_OFF):
            state, why = State.WAITING, line
    return state, why
