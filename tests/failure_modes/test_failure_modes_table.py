"""The table of failure modes stays true: each of the thirty has tests, and each test that it names exists."""

import subprocess
import sys
from dataclasses import replace

from tests.failure_modes.table import MODES, ROOT, problems


def test_each_of_the_thirty_modes_has_tests_that_exist():
    assert len(MODES) == 30
    assert list(problems()) == []


def test_a_table_that_is_wrong_is_told_line_by_line():
    first, second, *rest = MODES
    gone = "tests/daemon/test_drain.py::test_that_nobody_wrote"
    nowhere = "tests/daemon/test_no_such_file.py::test_x"
    bad = [
        replace(first, tests=()),
        replace(second, tests=(gone, nowhere, second.tests[0], second.tests[0])),
        *rest[1:],
    ]
    assert list(problems(bad)) == [
        "the numbers are not 1, 2, 3, …",
        "1: no test is named",
        "2: a test is named twice",
        f"2: there is no test {gone}",
        f"2: there is no test {nowhere}",
    ]


def test_the_command_prints_every_mode_with_its_tests():
    done = subprocess.run(
        [sys.executable, "-m", "tests.failure_modes"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for mode in MODES:
        assert f"{mode.number:2}  {mode.title}\n" in done.stdout
        assert all(test in done.stdout for test in mode.tests)
