"""Timelines: sums and episodes against cases computed by hand, and the files on disk."""

from __future__ import annotations

import csv
import itertools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.replay.timeline import (
    TIMELINE_COLUMNS,
    Episode,
    RunIdentity,
    TimelineRow,
    Totals,
    report_of,
    reversals,
    shortage_episodes,
    totals,
    write_document,
    write_timeline,
)

NAN = math.nan
START_S = 1_772_409_600.0  # 2026-03-02T00:00:00Z
IDENTITY = RunIdentity(trace="aa11", policy="bb22", plant="cc33", code="0.1.0", seed=7)


def row(number: int, **changes: object) -> TimelineRow:
    ordinary = TimelineRow(
        timestamp_s=START_S + 10.0 * number,
        demand=300.0,
        forecast=310.0,
        forecast_hi=350.5,
        desired=3,
        in_service=3,
        starting=0,
        draining=0,
        stopped=7,
        warm_target=7,
        capacity=360.0,
        shortage=0.0,
        starts=0,
        stops=0,
        provisions=0,
        cost=0.0008,
        reason="demand",
    )
    return replace(ordinary, **changes)  # type: ignore[arg-type]


def episodes(shortage: list[float], stamps: list[float] | None = None) -> tuple[Episode, ...]:
    times = np.arange(len(shortage)) * 10.0 if stamps is None else np.array(stamps)
    return shortage_episodes(times, np.array(shortage, dtype=np.float64), 10.0)


@pytest.mark.parametrize(
    ("shortage", "expected"),
    [
        ([], ()),
        ([0.0, 0.0], ()),
        ([5.0], (Episode(0.0, 10.0, 50.0, 5.0),)),
        ([0.0, 20.0, 60.0, 0.0], (Episode(10.0, 30.0, 800.0, 60.0),)),
        ([7.0, 0.0, 1.0, 2.0], (Episode(0.0, 10.0, 70.0, 7.0), Episode(20.0, 40.0, 30.0, 2.0))),
        ([4.0, NAN, 4.0], (Episode(0.0, 10.0, 40.0, 4.0), Episode(20.0, 30.0, 40.0, 4.0))),
        ([NAN, NAN], ()),
    ],
    ids=["empty", "none", "one", "inside", "both ends", "unknown ends a run", "all unknown"],
)
def test_episodes(shortage, expected) -> None:
    assert episodes(shortage) == expected


def test_a_missing_interval_ends_an_episode() -> None:
    assert episodes([4.0, 4.0, 4.0], [0.0, 10.0, 30.0]) == (
        Episode(0.0, 20.0, 80.0, 4.0),
        Episode(30.0, 40.0, 40.0, 4.0),
    )


def test_episodes_of_a_long_series_add_up() -> None:
    shortage = np.maximum(np.random.default_rng(5).normal(0.0, 10.0, 20_000), 0.0)
    found = shortage_episodes(np.arange(20_000) * 10.0, shortage, 10.0)
    assert sum(episode.unserved_work for episode in found) == pytest.approx(shortage.sum() * 10.0)
    assert sum(episode.end_s - episode.start_s for episode in found) == np.count_nonzero(shortage) * 10.0
    assert max(episode.worst_per_s for episode in found) == shortage.max()
    assert all(one.end_s < other.start_s for one, other in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("desired", "expected"),
    [
        ([], 0),
        ([3.0], 0),
        ([3.0, 4.0, 5.0], 0),
        ([3.0, 4.0, 3.0], 1),
        ([3.0, 4.0, 4.0, 4.0, 3.0, 3.0, 4.0], 2),
        ([3.0, 4.0, NAN, 3.0], 1),
        ([3.0, NAN, 4.0], 0),
    ],
)
def test_reversals(desired, expected) -> None:
    assert reversals(np.array(desired)) == expected


def test_totals_by_hand() -> None:
    rows = [
        row(0),
        row(1, demand=480.0, shortage=120.0, desired=5, starting=2, starts=2),
        row(2, demand=420.0, shortage=60.0, desired=5, starting=1, draining=1, stops=1),
        row(3, demand=NAN, shortage=None, desired=4, in_service=5, provisions=1, cost=0.002),
        row(4, demand=500.0, shortage=20.0, desired=5, in_service=4, stopped=5),
    ]
    assert asdict(totals(rows, 10.0)) == {
        "span_s": 50.0,
        "unknown_s": 10.0,
        "demand_work": 17_000.0,
        "unserved_work": 2_000.0,
        "unserved_share": pytest.approx(2 / 17),
        "shortage_s": 30.0,
        "episodes": 2,
        "longest_episode_s": 20.0,
        "in_service_vm_s": 180.0,
        "draining_vm_s": 10.0,
        "stopped_vm_s": 330.0,
        "starts": 2.0,
        "stops": 1.0,
        "provisions": 1.0,
        "reversals": 2,
        "cost": pytest.approx(0.0052),
    }


def test_a_sum_over_something_unknown_is_unknown() -> None:
    summed = totals([row(0), row(1, cost=None, starts=None)], 10.0)
    assert math.isnan(summed.cost)
    assert math.isnan(summed.starts)
    assert summed.stops == 0.0


@pytest.mark.parametrize("rows", [[], [row(0, demand=0.0)], [row(0, demand=None)]])
def test_the_share_of_no_demand_is_unknown(rows) -> None:
    summed = totals(rows, 10.0)
    assert math.isnan(summed.unserved_share)
    assert summed.episodes == 0


def test_the_file_has_the_columns_of_the_format(tmp_path) -> None:
    write_timeline(
        tmp_path / "out" / "timeline.csv",
        [
            row(0, reason='forecast "cover", then rate\nlimit'),
            row(1, demand=NAN, forecast=None, warm_target=None, shortage=NAN, cost=0.1 + 0.2, reason=""),
        ],
    )
    text = (tmp_path / "out" / "timeline.csv").read_bytes()
    assert b"\r" not in text
    with (tmp_path / "out" / "timeline.csv").open(newline="") as stream:
        header, first, second = csv.reader(stream)
    assert ",".join(header) == (
        "timestamp,demand,forecast,forecast_hi,desired,in_service,starting,draining,stopped,warm_target,"
        "capacity,shortage,starts,stops,provisions,cost,reason"
    )
    assert tuple(header) == TIMELINE_COLUMNS
    assert first == [
        *("2026-03-02T00:00:00Z", "300", "310", "350.5", "3", "3", "0", "0", "7", "7"),
        *("360", "0", "0", "0", "0", "0.0008", 'forecast "cover", then rate\nlimit'),
    ]
    assert second == [
        *("2026-03-02T00:00:10Z", "", "", "350.5", "3", "3", "0", "0", "7", ""),
        *("360", "", "0", "0", "0", "0.3", ""),
    ]


def test_only_the_header_where_nothing_ran(tmp_path) -> None:
    write_timeline(tmp_path / "timeline.csv", [])
    assert (tmp_path / "timeline.csv").read_text() == ",".join(TIMELINE_COLUMNS) + "\n"


def test_a_writing_that_fails_leaves_the_file_as_it_was(tmp_path) -> None:
    file = tmp_path / "timeline.csv"
    write_timeline(file, [row(0)])
    before = file.read_bytes()

    def broken():
        yield row(1)
        raise RuntimeError("the run broke")

    with pytest.raises(RuntimeError, match="the run broke"):
        write_timeline(file, broken())
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_an_output_directory_that_is_a_file(tmp_path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(
        ConfigError, match=r"out/timeline\.csv cannot be written: .*Give another output directory"
    ):
        write_timeline(tmp_path / "out" / "timeline.csv", [row(0)])


def write_report(path, *report) -> None:
    write_document(path, report_of(*report))


def test_equal_runs_give_equal_reports(tmp_path) -> None:
    run, always_on = totals([row(0), row(1, demand=None)], 10.0), totals([row(0, in_service=9)], 10.0)
    write_report(
        tmp_path / "a.json", IDENTITY, run, {"reactive": run, "always_on": always_on}, {"b": 1, "a": [NAN]}
    )
    write_report(
        tmp_path / "b.json",
        IDENTITY,
        run,
        {"always_on": always_on, "reactive": run},
        {"a": (np.float64(NAN),), "b": np.int64(1)},
    )
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_report_says_what_ran_and_null_where_it_does_not_know(tmp_path) -> None:
    run = totals([row(0, demand=None)], 10.0)
    write_report(tmp_path / "report.json", IDENTITY, run, {"always_on": run}, {"speed": 600})
    text = (tmp_path / "report.json").read_text()
    report = json.loads(text)
    assert text.endswith("}\n")
    assert report["identity"] == {
        "trace": "aa11",
        "policy": "bb22",
        "plant": "cc33",
        "code": "0.1.0",
        "seed": 7,
    }
    assert report["totals"]["unserved_share"] is None
    assert report["totals"]["unknown_s"] == 10.0
    assert set(report["baselines"]["always_on"]) == set(Totals.__dataclass_fields__)
    assert report["details"] == {"speed": 600}
    assert list(report) == sorted(report)
