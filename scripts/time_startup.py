"""Time commands as whole processes, in turn, against the imports that they cannot do without."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCHREG = str(Path(sys.executable).with_name("batchreg"))
MODULES = ("click, troposphere.batch, troposphere.ec2, troposphere.iam, "
           "troposphere.secretsmanager")
PAIRS = [
    ([BATCHREG, "render"], [sys.executable, "-c", f"import {MODULES}"]),
    ([BATCHREG, "--help"], [sys.executable, "-c", "import click"]),
]


def seconds(command: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - start


def main(runs: int = 21) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for command, floor in PAIRS:
            rounds = [(seconds(command, folder), seconds(floor, folder)) for _ in range(runs)]
            ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratio = statistics.median(ours / theirs for ours, theirs in rounds)
            print(f"batchreg {command[1]:8} {ours * 1000:4.0f} ms = {ratio:.2f} x "
                  f"{theirs * 1000:.0f} ms of {floor[1]} '{floor[2]}'")


if __name__ == "__main__":
    main()
