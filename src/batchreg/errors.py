"""The failures that batchreg expects; `cli.main` turns each into one line and an exit status."""


class BatchregError(Exception):
    """One line for the user: the fact, then the next step."""

    status = 1  # what the process exits with
