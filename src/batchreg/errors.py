"""The failures that batchreg expects; `cli.main` turns each into one line and an exit status."""


class BatchregError(Exception):
    """One line for the user: the fact, then the next step."""

    status = 1  # what the process exits with


class Interrupted(BaseException):
    """Ctrl-C, with the line to say: what goes on, and how to follow it. Exit status 130."""
