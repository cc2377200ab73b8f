"""The failures that batchreg expects; `cli.main` turns each into one line and an exit status."""


class BatchregError(Exception):
    """An expected failure: a fact, and the next step. Both are sentences; together they are a line.

    `status` is what the process exits with.
    """

    status = 1

    def __init__(self, fact: str, step: str = "") -> None:
        super().__init__(fact, step)
        self.fact, self.step = fact, step

    def __str__(self) -> str:
        return f"{self.fact} {self.step}".strip()


class Interrupted(BaseException):
    """Ctrl-C, with the line to print: what continues, and how to watch it. Exit status 130."""
