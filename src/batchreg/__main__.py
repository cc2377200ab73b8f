"""The command `batchreg`, and `python -m batchreg`."""

from __future__ import annotations

import gc
import os
import signal
import sys


def main() -> int:
    """Run the command line; while it is still being imported, Ctrl-C is one line as well."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored, as by nohup
        signal.signal(signal.SIGINT, _end)
    # Imports leave no garbage, and the search for it takes a seventh of the time of `render`.
    gc.set_threshold(100_000)
    from batchreg import cli

    return cli.main()


def _end(*_: object) -> None:
    os.write(2, b"batchreg: interrupted; nothing has changed.\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
