"""The embedded AWS by hand, as `.venv/bin/python scripts/local_aws`, or as a child process."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from pathlib import Path

if not __package__:  # its folder is run, and not `-m local_aws`
    sys.path[0] = str(Path(__file__).parents[1])
from local_aws import listen
from local_aws.server import serve


def _end_with_parent() -> None:
    """End when the parent does: then the other end of stdin is closed, whatever killed it."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock would be in the way of an ordinary end
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description="An AWS with Batch, on this machine only.")
    parser.add_argument("--port", type=int, default=4566, help="0 takes a free one (%(default)s)")
    parser.add_argument("--serve", type=int, metavar="FD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        _end_with_parent()
        serve(socket.socket(fileno=options.serve), by_hand=False)
        return
    try:
        listener = listen(options.port)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        sys.exit(f"Port {options.port}: {why}. Use --port 0 for a free one.")
    serve(listener, by_hand=True)


if __name__ == "__main__":
    main()
