"""Which peers take part in a benchmark, and the folders of traces on which it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.benchmark.conditions import Fleet, course_of
from autoscaler.simulator.benchmark.entrants import from_file
from autoscaler.simulator.benchmark.folder import Part, Shared, run_parts, series_in, vms_in
from autoscaler.simulator.benchmark.generated import generated
from autoscaler.simulator.search.executors import Processes
from autoscaler.traces.trace import Trace
from tests.simulator.test_benchmark import REACTIVE, told_by, trace_of, wavy

BEGIN_S = 1_772_409_600.0


def test_the_benchmark_lays_its_own_fleet_over_a_policy(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        "fleet: shop\nsignal: {kind: throughput, source: scrape, scrape: {metric: requests_total, type: counter}}\n"
        "vm: {capacity: 7/s}\nbounds: {minimum: 3, maximum: 5}\nreactive: {headroom: 50%}\n"
    )
    entrant = from_file(file, "reactive.headroom=10%,90%")
    fleet = Fleet.on(course_of(wavy()), 8)
    one, two = entrant.policies(fleet, entrant.settings)
    assert (one.reactive and one.reactive.headroom, two.reactive and two.reactive.headroom) == (0.1, 0.9)
    assert (one.bounds.minimum, one.vm.capacity_per_s, one.signal.kind) == (0, 125.0, "total")
    assert entrant.labels() == ["10%", "90%"]


def folder_of(place: Path, **traces: Trace) -> Path:
    lines = ["file,kind,interval_s"]
    for name, trace in traces.items():
        rows = "".join(
            f"{t:.0f},{v!r}\n" for t, v in zip(trace.timestamps.tolist(), trace.values.tolist(), strict=True)
        )
        (place / f"{name}.csv").write_text(f"timestamp,value\n{rows}")
        lines.append(f"{name}.csv,{trace.kind},{trace.interval_s:g}")
    (place / "manifest.csv").write_text("\n".join([*lines, "events.csv,events,", ""]))
    return place


def test_each_vm_of_a_table_is_a_trace_where_it_did_anything(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no table of kind per-vm"):
        vms_in(folder_of(tmp_path, calm=wavy(1)))
    rows = ["timestamp,vm,cpu_percent"]
    for at in range(40):
        # Stamps within their intervals; one VM idles, another comes after a while.
        rows += [f"{at * 300 + 17},busy,{10 + at % 7}", f"{at * 300 + 18},idle,0"]
        rows += [f"{at * 300 + 19},late,{at}"] if at >= 20 else []
    (tmp_path / "fleet.csv").write_text("\n".join([*rows, ""]))
    (tmp_path / "manifest.csv").write_text("file,kind,interval_s\nfleet.csv,per-vm,300\n")
    found, unusable = vms_in(tmp_path)
    assert [trace.name for trace in found] == ["fleet/busy", "fleet/late"]
    assert unusable == ["fleet/idle"]
    assert found[0].timestamps[:2].tolist() == [0.0, 300.0]
    assert found[1].timestamps[0] == 20 * 300.0
    assert found[1].values.tolist() == list(range(20, 40))
    with pytest.raises(ConfigError, match="no series called nosuch; it has fleet"):
        vms_in(tmp_path, ["nosuch"])
    (tmp_path / "manifest.csv").write_text("file,kind\nfleet.csv,per-vm\n")
    with pytest.raises(ConfigError, match=r"does not say how long an interval of fleet\.csv is"):
        vms_in(tmp_path)


def test_a_folder_is_what_its_manifest_says(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"manifest\.csv is not there; a manifest\.csv names the traces"):
        series_in(tmp_path)
    folder_of(tmp_path, calm=wavy(1), busy=wavy(2))
    assert [file.name for file in series_in(tmp_path)] == ["calm.csv", "busy.csv"]
    assert [file.name for file in series_in(tmp_path, ["bu"])] == ["busy.csv"]
    with pytest.raises(ConfigError, match="no series called nosuch; it has calm, busy"):
        series_in(tmp_path, ["nosuch"])


def test_a_bad_trace_stops_no_other_and_processes_change_no_figure(tmp_path: Path) -> None:
    folder_of(tmp_path, calm=wavy(1), zero=trace_of(np.zeros(100)), busy=wavy(2))
    parts = [Part(file) for file in series_in(tmp_path)]
    shared = Shared((8,), ("google", "react"), (REACTIVE,))
    shares: list[float] = []
    here = run_parts(parts, shared, on_part=shares.append)
    there = run_parts(parts, shared, executor=Processes(2))
    assert [bout.trace for bout in here.bouts] == ["calm", "busy"]
    assert here.whole
    assert len(here.failed) == 1
    assert "zero" in here.failed[0]
    assert told_by(here.bouts) == told_by(there.bouts)
    assert shares[-1] == 1.0


def test_what_was_finished_is_kept_where_it_is_ended(tmp_path: Path) -> None:
    folder_of(tmp_path, calm=wavy(1), busy=wavy(2))
    parts = [Part(file) for file in series_in(tmp_path)]

    def ended(_share: float) -> None:
        raise KeyboardInterrupt

    found = run_parts(parts, Shared((8,), ("google",), ()), on_part=ended)
    assert not found.whole
    assert len(found.bouts) == 1


def test_an_earlier_run_lends_its_peers_and_its_optimum() -> None:
    trace = wavy(4)
    shared = Shared((8,), ("google", "static"), ())
    (before,) = run_parts([Part(trace)], shared).bouts
    marked = replace(
        before,
        fleets=tuple(
            replace(fleet, clairvoyant=replace(fleet.clairvoyant, starts=(1, 2, 3)))
            for fleet in before.fleets
        ),
    )
    with_ours = replace(shared, entrants=(REACTIVE,))
    (after,) = run_parts([Part(trace, marked)], with_ours).bouts
    assert after.fleets[0].clairvoyant.starts == (1, 2, 3)
    assert list(after.fleets[0].curves) == ["static", "google", "plain"]
    assert after.fleets[0].regrets["google"] == before.fleets[0].regrets["google"]
    # Another recording under the same name lends nothing.
    (other,) = run_parts([Part(wavy(9), marked)], with_ours).bouts
    assert other.fleets[0].clairvoyant.starts != (1, 2, 3)


def test_generated_traces_are_made_of_their_seed() -> None:
    one, again, other = generated(1), generated(1), generated(2)
    assert [trace.digest for trace in one] == [trace.digest for trace in again]
    assert not {trace.digest for trace in one} & {trace.digest for trace in other}
    assert len({trace.name for trace in one}) == len(one) == 5
    assert all(course_of(trace).long for trace in one)
