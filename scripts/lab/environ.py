"""The environment of a program that is to know nothing of who runs it."""

from __future__ import annotations

import os

# Whole and fixed: for programs to which the caller's environment is of no use at all.
ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


def clean(*prefixes: str, **more: str) -> dict[str, str]:
    """Return this process's environment without settings of AWS's and batchreg's, and with more.

    Variables with one of `prefixes` go as well.
    """
    unwanted = ("AWS_", "BATCHREG_", *prefixes)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, **more}
