"""The command `batchreg`, and `python -m batchreg`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end; while it is being imported, Ctrl-C is one line as well."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored, as by nohup
        signal.signal(signal.SIGINT, _end)
    # Imports leave no garbage, and the search for it takes a seventh of the time of `render`.
    gc.set_threshold(1_000_000)
    from batchreg.cli.main import main as run

    status = run()
    # The output is complete. Freeing thousands of classes would be a fifth of the time of `render`.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # the reader has left, which is not a failure
            pass
        except (OSError, ValueError):
            status = status or 1
    os._exit(status)


def _end(*_: object) -> None:
    os.write(2, b"batchreg: interrupted; no changes were made.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
