"""Recording a running fleet on virtual time: what is measured, what stays unknown, and when it ends."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from autoscaler.clock import VirtualClock, run_virtual
from autoscaler.core.types import Signal
from autoscaler.errors import SourceError, TraceError
from autoscaler.ports import FleetReadings, Listing, Vm, VmState
from autoscaler.simulator.traffic.sampling import Sampling
from autoscaler.sources.trace import TraceSource
from autoscaler.traces.trace import Trace, TraceKind
from tests.daemon.builders import policy


def vm(name, fleet="web", state=VmState.RUNNING):
    return Vm(name, fleet, state, "t", "a", name, 0.0, "image")


class Account:
    """Lists what it is told to, one listing a call; the last one again and again."""

    def __init__(self, *listings):
        self.listings = list(listings)

    async def list_vms(self):
        vms = self.listings.pop(0) if len(self.listings) > 1 else self.listings[0]
        return (
            Listing((), False, 0.0, 0.0, "throttled") if vms is None else Listing(tuple(vms), True, 0.0, 0.0)
        )


class Scripted:
    """A source that answers by tick with a value per VM, raises, or hangs."""

    def __init__(self, clock, answers):
        self.clock, self.answers, self.asked = clock, list(answers), []

    async def read(self, vms):
        self.asked.append([one.id for one in vms])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise SourceError("nobody answers")
        if answer == "hang":
            await asyncio.Event().wait()
        values = {one.id: answer[one.id] for one in vms if one.id in answer}
        return FleetReadings(
            tuple(values), np.array(list(values.values())), np.full(len(values), self.clock.now())
        )

    async def close(self):
        pass


def recorded(answers, *, account=None, vms=("a", "b"), for_s=60.0, every_s=10.0, signal=None, stop_at=None):
    told = []

    async def main():
        clock, stop = VirtualClock(1000.0), asyncio.Event()
        source = Scripted(clock, answers)
        if stop_at is not None:
            asyncio.get_running_loop().call_later(stop_at, stop.set)
        sampling = Sampling(
            policy(signal=signal or {"kind": "throughput"}), source, clock, every_s,
            account, [vm(name) for name in vms] if account is None else (), told.append,
        )  # fmt: skip
        return await sampling.run(for_s, stop), source.asked, clock.now()

    found, asked, ended_s = run_virtual(main)
    return found, asked, ended_s, told


def test_the_sum_over_the_vms_on_the_grid_of_ticks():
    found, asked, ended_s, told = recorded([{"a": 10.0, "b": 20.0}, {"a": 11.0, "b": 22.0}])
    assert found.trace.timestamps.tolist() == [1010.0, 1020.0, 1030.0, 1040.0, 1050.0, 1060.0]
    assert found.trace.values.tolist() == [30.0, *[33.0] * 5]
    assert (found.trace.kind, found.trace.interval_s, found.trace.name) == (TraceKind.GAUGE, 10.0, "web")
    assert (found.ticks, found.unknown, found.error, told) == (6, 0, "", [])
    assert asked == [["a", "b"]] * 6
    assert ended_s <= 1070.0


def test_trouble_is_a_gap_and_is_told_once_and_once_when_it_is_over():
    found, _, _, told = recorded([{"a": 1.0, "b": 1.0}, None, None, {"a": 1.0, "b": 1.0}])
    assert found.trace.timestamps.tolist() == [1010.0, 1040.0, 1050.0, 1060.0]
    assert (found.trace.missing, found.unknown) == (2, 2)
    assert told == ["nobody answers", "readings arrive again"]


def test_a_source_that_hangs_costs_its_tick_and_no_more():
    found, *_ = recorded([{"a": 1.0, "b": 1.0}, "hang", {"a": 1.0, "b": 1.0}])
    assert found.trace.timestamps.tolist() == [1010.0, 1030.0, 1040.0, 1050.0, 1060.0]
    assert found.error


def test_a_vm_that_falls_silent_counts_with_the_mean_and_one_that_never_spoke_does_not():
    found, *_ = recorded([{"a": 10.0, "b": 30.0}, {"a": 10.0}], vms=("a", "b", "never"))
    assert found.trace.values.tolist()[:2] == [40.0, 20.0]


def test_vms_come_and_go_with_the_listing_and_others_fleets_and_stopped_ones_are_left_alone():
    listings = [
        [vm("a"), vm("x", "api"), vm("s", state=VmState.STOPPED)],
        [vm("a"), vm("b")],
        None,
        [vm("b")],
    ]
    found, asked, _, told = recorded([{"a": 1.0, "b": 2.0}], account=Account(*listings))
    # A listing is used from the next tick on; while there is none, the last one is.
    assert asked[:5] == [["a"], ["a", "b"], ["a", "b"], ["b"], ["b"]]
    assert found.trace.values.tolist()[:5] == [1.0, 3.0, 3.0, 2.0, 2.0]
    assert told[0] == "VMs cannot be listed: throttled"


def test_saturated_vms_censor_what_is_recorded():
    found, *_ = recorded([{"a": 0.95, "b": 0.97}, {"a": 0.5, "b": 0.5}], signal={"kind": "utilisation"})
    assert found.trace.censored.tolist()[:2] == [True, False]


def test_stopping_early_keeps_what_was_recorded():
    found, _, ended_s, _ = recorded([{"a": 1.0, "b": 1.0}], for_s=3600.0, stop_at=35.0)
    assert found.trace.timestamps.tolist() == [1010.0, 1020.0, 1030.0]
    assert ended_s == 1035.0


def test_nothing_at_all_makes_no_trace():
    found, *_ = recorded([None])
    assert (found.trace, found.unknown, found.error) == (None, 6, "nobody answers")


def test_a_time_too_short_for_a_trace():
    with pytest.raises(TraceError, match="less than the two ticks"):
        recorded([None], for_s=15.0)


def test_recording_a_recording_gives_it_back():
    hour = Trace.build(np.arange(60) * 60.0, np.arange(60) % 7, kind=TraceKind.GAUGE)

    async def main():
        clock = VirtualClock(0.0)
        source = TraceSource(hour, clock, Signal.TOTAL, 1.0)
        sampling = Sampling(policy(signal={"kind": "total"}), source, clock, 60.0)
        return await sampling.run(3540.0, asyncio.Event())

    found = run_virtual(main)
    assert found.trace.digest == hour.cut(60.0, 3600.0).digest
