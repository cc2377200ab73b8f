"""The embedded AWS by hand, as `.venv/bin/python scripts/local_aws`, or as a child process."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import sys
import threading
from pathlib import Path

if not __package__:  # its folder is run, and not `-m local_aws`
    sys.path[0] = str(Path(__file__).parents[1])
from local_aws import LocalAws


def _end_with_parent() -> None:
    """End when the parent does: then the other end of stdin is closed, whatever killed it."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock would be in the way of an ordinary end
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _by_hand(port: int, scripted: bool) -> None:
    """Run until Ctrl-C, and print what a shell needs; jobs run where this machine can."""
    from lab.parts import missing

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    reason = "as --scripted says" if scripted else missing(["engine", "machine"])
    try:
        with LocalAws(port=port, jobs=not reason) as aws:
            for key, value in aws.environ.items():
                print(f"export {key}={shlex.quote(value)}", flush=True)
            jobs = f"only follow a script ({reason})" if reason else "run"
            print(
                f"AWS is at {aws.endpoint}, and its jobs {jobs}. Ctrl-C ends it.", file=sys.stderr
            )
            while True:
                signal.pause()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        sys.exit(f"Port {port}: {why}. Use --port 0 for a free one.")


def main() -> None:
    parser = argparse.ArgumentParser(description="An AWS with Batch, on this machine only.")
    parser.add_argument("--port", type=int, default=4566, help="0 takes a free one (%(default)s)")
    parser.add_argument("--scripted", action="store_true", help="let no job run")
    parser.add_argument("--serve", type=int, metavar="FD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        _end_with_parent()
        from local_aws.server import serve

        serve(socket.socket(fileno=options.serve))
    else:
        _by_hand(options.port, options.scripted)


if __name__ == "__main__":
    main()
