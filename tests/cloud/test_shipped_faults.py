"""The shipped fault schedules can be loaded, and strike within the length of a demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoscaler.cloud.setup import read_faults

FILES = sorted((Path(__file__).parents[2] / "simulations" / "faults").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_shipped_schedule_loads_and_is_finite(file: Path):
    faults = read_faults(file)
    assert faults
    assert all(fault.end_s <= 86_400.0 for fault in faults)


def test_there_are_some():
    assert FILES
