"""Deliberately broken deciders: each does one thing that no policy may do, and guards must catch it.

Otherwise they are honest: demand plus headroom by core's own `decide`, changed in one place.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import fields, replace

import numpy as np

from autoscaler.core.decide import decide
from autoscaler.core.state import LaneState
from autoscaler.core.types import Decision
from autoscaler.simulator.checks.subject import Subject


class Honest:
    """Core's `decide`, with hooks for cheating before and after it."""

    def __init__(self, compiled, traces):
        self.params, self.traces = compiled.lanes, traces
        self.state = LaneState.empty(compiled.lanes)

    def decide(self, snapshot, outlook):
        decision = decide(self.params, self.state, self.before(snapshot), outlook)
        return self.after(snapshot, decision)

    def before(self, snapshot):
        return snapshot

    def after(self, _snapshot, decision):
        return decision


def altered(decision, **changes):
    """A decision with some of its numbers changed."""
    return Decision(**{f.name: changes.get(f.name, getattr(decision, f.name)) for f in fields(Decision)})


def asking_for(decision, snapshot, more):
    """The decision with this many more VMs wanted, or fewer if negative."""
    desired = np.maximum(decision.desired + more, 0).astype(np.int32)
    ordered = snapshot.in_service + snapshot.starting
    return altered(
        decision,
        desired=desired,
        start=np.minimum(np.maximum(desired - ordered, 0), snapshot.stopped).astype(np.int32),
        stop=np.minimum(np.maximum(snapshot.in_service - desired, 0), snapshot.stoppable).astype(np.int32),
    )


class Peeks(Honest):
    """Looks up the demand in five minutes' time in the trace."""

    def before(self, snapshot):
        later = [float(trace.rate_at(snapshot.now_s + 300.0)) for trace in self.traces]
        return replace(snapshot, demand=np.fmax(snapshot.demand, np.nan_to_num(later)))


class RemembersItsBeginning(Honest):
    """Wants one more VM for ever if the first demand it saw was above 300/s."""

    def __init__(self, compiled, traces):
        super().__init__(compiled, traces)
        self.first = None

    def after(self, snapshot, decision):
        if self.first is None and not np.isnan(snapshot.demand).any():
            self.first = snapshot.demand.copy()
        return (
            decision
            if self.first is None
            else asking_for(decision, snapshot, (self.first > 300.0).astype(np.int32))
        )


class LooksAtOtherFleets(Honest):
    """Wants more VMs if another fleet is busier."""

    def after(self, snapshot, decision):
        busiest = np.nan_to_num(snapshot.demand).max()
        return asking_for(decision, snapshot, (np.nan_to_num(snapshot.demand) < busiest).astype(np.int32))


class ReadsAClock(Honest):
    """Reads the machine's clock."""

    def after(self, snapshot, decision):
        return asking_for(decision, snapshot, np.int32(time.perf_counter_ns() // 1000 % 2))


class Counts(Honest):
    """Decides by how often it has ever been called, over all instances."""

    calls = itertools.count()

    def after(self, snapshot, decision):
        return asking_for(decision, snapshot, np.int32(next(Counts.calls) % 5 == 0))


class ForgetsAtARestart(Honest):
    """Keeps a maximum outside the state that is saved."""

    def __init__(self, compiled, traces):
        super().__init__(compiled, traces)
        self.highest = np.zeros(len(traces))

    def after(self, snapshot, decision):
        self.highest = np.maximum(0.999 * self.highest, np.nan_to_num(snapshot.demand))
        return asking_for(
            decision, snapshot, (self.highest > 1.5 * np.nan_to_num(snapshot.demand)).astype(np.int32)
        )


class StartsWhatIsNotThere(Honest):
    """Orders more starts than there are stopped VMs."""

    def after(self, snapshot, decision):
        return altered(
            decision, start=(decision.start + (decision.start > 0) * snapshot.stopped).astype(np.int32)
        )


class StopsTwice(Honest):
    """Stops more VMs than are in service."""

    def after(self, snapshot, decision):
        return altered(
            decision, stop=(decision.stop + (decision.stop > 0) * snapshot.in_service).astype(np.int32)
        )


class TakesSilenceForNoDemand(Honest):
    """Stops VMs when there is no reading."""

    def after(self, snapshot, decision):
        silent = np.isnan(snapshot.demand) & (snapshot.in_service > 1)
        stop = np.where(silent, np.minimum(snapshot.stoppable, 1), decision.stop).astype(np.int32)
        return altered(decision, stop=stop)


class LivesOnTheLastReading(Honest):
    """Gives up half of the VMs in service when a reading is older than usual."""

    def before(self, snapshot):
        old = snapshot.now_s - snapshot.observed_at_s > 30.0
        return replace(snapshot, demand=np.where(old, 0.1 * snapshot.demand, snapshot.demand))


CAUGHT_BY = {
    "prefix": Peeks,
    "poison": Peeks,
    "warm-up": RemembersItsBeginning,
    "independence": LooksAtOtherFleets,
    "determinism": ReadsAClock,
    "restart": ForgetsAtARestart,
    "conservation": StartsWhatIsNotThere,
    "silence": TakesSilenceForNoDemand,
    "lag": LivesOnTheLastReading,
}


def with_cheat(subject: Subject, cheat) -> Subject:
    """The subject with a cheat as its decider."""
    return replace(subject, decider=cheat)
