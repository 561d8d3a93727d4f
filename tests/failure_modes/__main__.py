"""Prints the table of failure modes. Exits with status 1 if it names a test that does not exist.

Usage: `python -m tests.failure_modes`.
"""

from __future__ import annotations

import sys
import textwrap

from autoscaler.cli.pipes import ends_with_its_reader
from tests.failure_modes.table import MODES, problems

WIDTH = 110


def main() -> int:
    """Print the table on standard output and its problems on standard error, and return the exit status."""
    for mode in MODES:
        print(f"{mode.number:2}  {mode.title}")
        print(textwrap.indent(textwrap.fill(mode.does, WIDTH - 4), "    "))
        for test in mode.tests:
            print(f"      {test}")
        print()
    wrong = list(problems())
    for text in wrong:
        print(text, file=sys.stderr)
    named = {test for mode in MODES for test in mode.tests}
    print(f"{len(MODES)} failure modes, {len(named)} tests, {len(wrong)} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    with ends_with_its_reader():
        raise SystemExit(main())
