"""Lint every kind of template with cfn-lint, checkov, cfripper and parliament.

cfn-lint runs for every region that has Batch, with its informational rules. The others have an
environment of their own (lint_requirements.txt), as they need old versions of much.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import botocore.session
from template_variants import variants

ROOT = Path(__file__).parent.parent
LINTERS = ROOT / ".venv-lint/bin"


def batch_regions() -> list[str]:
    """Return the regions, of all partitions, in which AWS Batch exists."""
    session = botocore.session.Session()
    return [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("batch", partition)
    ]


def cfn_lint(*paths: str) -> list[str]:
    """Return the command that runs cfn-lint over the templates at `paths`."""
    return [
        str(Path(sys.executable).with_name("cfn-lint")),
        "--include-checks",
        "I",
        "--regions",
        *batch_regions(),
        "--",
        *paths,
    ]


def lint(*paths: str) -> subprocess.CompletedProcess[str]:
    """Run cfn-lint over the templates at `paths`; its exit status is 0 without findings."""
    return subprocess.run(cfn_lint(*paths), capture_output=True, text=True)


def commands(folder: Path) -> dict[str, list[str]]:
    """Return {name: command} of every linter, for all templates in `folder`.

    A command's exit status is 0 without findings, and it needs no network.
    """
    paths = sorted(map(str, folder.iterdir()))
    return {
        "cfn-lint": cfn_lint(*paths),
        "checkov": [
            str(LINTERS / "checkov"),
            "--skip-download",
            "--quiet",
            "--compact",
            *("--framework", "cloudformation", "secrets"),
            *("--directory", str(folder)),
        ],
        "cfripper and parliament": [
            str(LINTERS / "python"),
            str(ROOT / "scripts/lint_policies.py"),
            *paths,
        ],
    }


def run(commands: dict[str, list[str]]) -> dict[str, tuple[int, str]]:
    """Run commands at the same time, by name; return {name: (exit status, output)}."""
    running = {
        name: subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, command in commands.items()
    }
    results = {}
    for name, process in running.items():
        output, _ = process.communicate()
        results[name] = (process.returncode, output)
    return results


def main(paths: list[str]) -> int:
    """Lint the templates at `paths` and every kind that can be rendered; return an exit status."""
    start = time.monotonic()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for path in map(Path, paths):
            (folder / path.name).write_text(path.read_text())
        for file, text in variants():
            (folder / file).write_text(text)
        count = len(list(folder.iterdir()))
        results = run(commands(folder))
    for linter, (status, output) in results.items():
        print(f"{linter}:\n{output}" if status else f"{linter}: no finding")
    print(f"{count} templates, {len(batch_regions())} regions, {time.monotonic() - start:.0f} s")
    return int(any(status for status, _ in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
