"""Run cfn-lint over templates, informational rules included, for every region that has Batch."""

import subprocess
import sys
from pathlib import Path

import botocore.session


def batch_regions() -> list[str]:
    """Return the regions, of all partitions, in which AWS Batch exists."""
    session = botocore.session.Session()
    return [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("batch", partition)
    ]


def lint(*paths: str) -> subprocess.CompletedProcess[str]:
    """Run cfn-lint over the templates at `paths`; its exit status is 0 without findings."""
    command = [
        str(Path(sys.executable).with_name("cfn-lint")),
        "--include-checks",
        "I",
        "--regions",
        *batch_regions(),
        "--",
        *paths,
    ]
    return subprocess.run(command, capture_output=True, text=True)


if __name__ == "__main__":
    result = lint(*sys.argv[1:])
    print(result.stdout + result.stderr, end="")
    if result.returncode == 0:
        print(f"{len(sys.argv) - 1} templates, {len(batch_regions())} regions: no finding")
    sys.exit(result.returncode)
