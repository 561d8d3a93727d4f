"""Results of a sweep: the front, the labels, and the files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.score import FIGURES
from autoscaler.simulator.search.axes import current_values
from autoscaler.simulator.search.landscape import (
    RESULTS_CSV,
    RESULTS_PARQUET,
    front,
    landscape,
    write_results,
)
from autoscaler.simulator.search.sweep import run_sweep
from autoscaler.simulator.search.variants import Axis, grid
from tests.real import require_real
from tests.search.builders import BASE, COURSE

AXES = [Axis("reactive.headroom", ("0%", "20%", "60%")), Axis("plant.start", (20.0, 200.0))]


@pytest.fixture(name="found", scope="module")
def _found():
    swept = run_sweep([BASE.variant({}), *grid(BASE, AXES)], COURSE)
    return landscape(swept, current_values(BASE, [axis.path for axis in AXES]))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_the_front_is_what_nothing_beats(points):
    cost, lost = (np.array(column, float) for column in zip(*points, strict=True))
    on = front(cost, lost)
    for at in range(len(points)):
        beaten = ((cost <= cost[at]) & (lost <= lost[at]) & ((cost < cost[at]) | (lost < lost[at]))).any()
        assert on[at] == (not beaten)


def test_what_is_unknown_is_not_on_the_front():
    assert front(np.array([1.0, np.nan, 2.0]), np.array([np.nan, 0.0, 5.0])).tolist() == [False, False, True]
    assert not front(np.full(3, np.nan), np.zeros(3)).any()


@pytest.mark.parametrize(("path", "other"), [("prices.in_service", "0.001/h"), ("vm.capacity", "900/s")])
def test_other_prices_and_quicker_vms_beat_nothing(path, other):
    now = current_values(BASE, [path])
    found = landscape(run_sweep([BASE.variant({}), *grid(BASE, [Axis(path, (other,))])], COURSE), now)
    assert found.figures["cost"][1] < found.figures["cost"][0]
    assert found.same_plant.tolist() == [True, False]
    assert found.front.tolist() == [True, True]


def test_a_cheaper_plant_beats_nothing(found):
    """Which plant there is, is not chosen: each has its own front."""
    starts = np.array([40.0, 20.0, 200.0, 20.0, 200.0, 20.0, 200.0])
    assert found.parameters["plant.start"] == tuple(starts.tolist())
    for start in (20.0, 200.0):
        rows = starts == start
        assert (
            found.front[rows].tolist()
            == front(found.figures["cost"][rows], found.figures["unserved_share"][rows]).tolist()
        )
        assert found.front[rows].any()
    assert found.same_plant.tolist() == (starts == 40.0).tolist()
    assert found.named(2) == "reactive.headroom 0%, plant.start 200.0"
    assert found.named(0) == "as it is"


def test_what_a_single_change_does_is_found_among_the_variants(found):
    """A policy on a plant of its own has none that changes the headroom alone; of two fields both are found."""
    assert found.alone("reactive.headroom", 1) is None
    axes = [Axis("reactive.headroom", ("0%", "20%")), Axis("guards.stabilisation", ("5m", "20m"))]
    swept = run_sweep([BASE.variant({}), *grid(BASE, axes)], COURSE)
    judged = landscape(swept, current_values(BASE, [axis.path for axis in axes]))
    both = 2
    assert [column[both] for column in judged.parameters.values()] == ["0%", "20m"]
    alone = [judged.alone(path, both) for path in judged.parameters]
    assert [[column[row] for column in judged.parameters.values()] for row in alone] == [
        ["0%", "5m"],
        ["20%", "20m"],
    ]


def test_results_are_labelled_and_unknown_is_empty(found, tmp_path):
    path = write_results(tmp_path, found, "csv", {"why_not": [""] * 7})
    assert path == tmp_path / RESULTS_CSV
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["variant", *found.parameters, *(f.key for f in FIGURES), "why_not"]
    assert [row["variant"] for row in rows] == [str(number) for number in range(7)]
    assert rows[5]["reactive.headroom"] == "60%"
    for at, row in enumerate(rows):
        assert float(row["cost"]) == pytest.approx(found.figures["cost"][at], rel=1e-9)
        assert row["regret"] == ""


def test_parquet_holds_the_same(found, tmp_path):
    try:
        import pyarrow.parquet as pq
    except ImportError:
        require_real("pyarrow (extra sim)", available=False)
    write_results(tmp_path, found, "csv")
    table = pq.read_table(write_results(tmp_path, found, "parquet"))
    # Another form replaces the one before, so that no stale figures stay.
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS_PARQUET]
    assert table["cost"].to_pylist() == found.figures["cost"].tolist()
    assert table["plant.start"].to_pylist() == list(found.parameters["plant.start"])
    assert table["regret"].null_count == 7


def test_a_place_that_cannot_be_written_is_said(found, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written.*Give another output directory"):
        write_results(tmp_path / "file", found, "csv")
    assert json.dumps(found.of_row(0)).count("NaN") > 0
