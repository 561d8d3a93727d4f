"""The plant: L simulated fleets of counts side by side, which carry out what a policy decides.

The order within tick k, at its time t_k, is always the same:

1. `advance`: the plant moves from t_(k-1) to t_k. Starts and provisionings that are due come into service, failed ones
   fall back, drained VMs begin to stop, stopping VMs become stopped;
2. the ledger takes the interval that ended (`accounts`, a block of ticks at a time);
3. what is known of demand by t_k becomes the snapshot (`measuring`);
4. the policy decides;
5. `act`: what the provider accepts is under way from t_k; none of it is in service before t_(k+1).

The counts of tick k are those after step 1. The VMs that serve during [t_k, t_(k+1)) are those in service at t_k less those
whose stop was accepted at t_k. VMs leave service in the order in which they came, as the daemon chooses them when zones are
even. So the number of VMs that had come by each tick determines all ages.

Rules of this file: integers, element-wise over lanes, in place; no result is reduced over lanes. A feature that no lane's
settings ask for costs nothing: its branch is never built. Random draws are addressed (`draws`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.config.policy import Policy
from autoscaler.config.section import whole_ticks
from autoscaler.core.types import Bool, Float, Int
from autoscaler.simulator.lanes.buckets import Bucket
from autoscaler.simulator.lanes.delays import (
    INT32,
    Arrivals,
    Delay,
    Kind,
    Lottery,
    Odds,
    Vms,
)
from autoscaler.simulator.lanes.draws import Luck, Purpose
from autoscaler.simulator.lanes.dry_spells import DrySpells
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.plant_settings import Budget, PlantSettings
from autoscaler.simulator.lanes.start_luck import has_luck, luck_groups


class Plant:
    """Simulates L fleets as counts of VMs.

    Args:
        plants: Settings of each lane.
        policies: Policy of each lane, for what it says of its VMs.
        ticks: The ticks of the run.
        seed: Seed of all random draws.
        shifts: Ticks that each lane is ahead of `ticks`, for draws that belong to a moment; None for no shifts.
        kind: Integer type of the counts, wide enough for all of them: int32, or int16 if no start draws its time or outcome.

    Attributes:
        in_service, starting, draining, stopping, stopped, provisioned: int (L,), VMs in that state; starting
            includes provisioning, stopped includes quarantined VMs. Changed in place.
        startable: int (L,), stopped VMs that could be started now.
        stoppable: int (L,), VMs in service past their minimum on-time. The array `in_service` itself if all of them are
            known to be past it.
        quarantined: int32 (L,), stopped VMs that are not started again for a while after a failed start; None if no start
            can fail.
        given_up: int32 (L,), hanging VMs that are no longer counted on; None if no VM can hang.
        arrived, made: int (L,), VMs that came into service at this tick from stopped, and from provisioning (None if no
            lane provisions).
        failed: int32 (L,), starts that fell back to stopped at this tick; None if none can.
        extra_s: float64 (L,), VM-seconds billed at this tick in addition to those of VMs in service or draining: the rest of
            a billing minimum, and, if start times are drawn (`lucky`), the time before the VMs served. None for none.
        starts, provisions, stops: int (L,), accepted at this tick.
        left: int (L,), stops accepted so far; may wrap around.
        lead_in_s, made_lead_in_s: float64 (L,), seconds that one VM started from stopped, or provisioned, is billed before
            it is in service, if that time is the same for all.
        drains, any_drains: bool (L,), VMs of this lane drain before they stop; whether some lane's do.
        lucky: Start times are drawn, or starts can fail or be given up.
        has_extras: `extra_s` is in use.
    """

    def __init__(
        self,
        plants: Sequence[PlantSettings],
        policies: Sequence[Policy],
        ticks: Ticks,
        seed: int,
        shifts: Sequence[int] | None = None,
        kind: Kind = INT32,
    ) -> None:
        lanes = len(plants)
        self._kind = kind
        self._tick_s = ticks.tick_s
        self._first = ticks.first
        self._now_s = 0.0
        shifts = shifts or [0] * lanes
        self.in_service: Vms = np.array([plant.in_service for plant in plants], kind)
        self.provisioned: Vms = np.array([plant.vms for plant in plants], kind)
        self.stopped = self.provisioned - self.in_service
        self.starting, self.draining, self.stopping = (np.zeros(lanes, kind) for _ in range(3))
        none = np.zeros(lanes, kind)
        self.starts = self.provisions = self.stops = self.arrived = none
        self.made: Vms | None = None
        self.failed: Vms | None = None
        self.extra_s: Float | None = None
        self._set_up_delays(plants, policies, seed, shifts)
        self._set_up_stops(plants, ticks.tick_s)
        self._set_up_ages(plants, policies, ticks.tick_s)
        self._set_up_refusals(plants)
        self._spells: DrySpells | None = None
        if any(plant.can_run_dry for plant in plants):
            fleets = [policy.fleet for policy in policies]
            self._spells = DrySpells(
                plants, fleets, shifts, ticks=ticks.count, tick_s=ticks.tick_s, seed=seed
            )
        self.startable = self._startable()

    # ── setting up ─────────────────────────────────────────────────────────────────────────────────────

    def _set_up_delays(
        self, plants: Sequence[PlantSettings], policies: Sequence[Policy], seed: int, shifts: Sequence[int]
    ) -> None:
        tick_s, lanes = self._tick_s, len(plants)
        lucky = has_luck(plants, policies)
        makes = any(policy.provision is not None for policy in policies)
        self.lucky = lucky
        if makes:
            self.made = np.zeros(lanes, self._kind)
        self._start_lottery = Lottery(lanes, tick_s) if lucky else None
        self._make_lottery = Lottery(lanes, tick_s) if lucky and makes else None
        start_s = np.array([plant.start.longest_s for plant in plants])
        make_s = np.array([plant.provision.longest_s for plant in plants])
        boot_s = np.array([plant.boot_s for plant in plants])
        start_ticks, make_ticks = _whole(start_s, tick_s), _whole(make_s, tick_s)
        self._start_delay = None if lucky else Delay(start_ticks, self._kind)
        self._make_delay = Delay(make_ticks, self._kind) if makes and not lucky else None
        self.lead_in_s = start_ticks * tick_s - start_s + np.minimum(boot_s, start_s)
        self.made_lead_in_s = make_ticks * tick_s - make_s + np.minimum(boot_s, make_s)
        self.given_up: Vms | None = np.zeros(lanes, np.int32) if lucky else None
        if self._start_lottery is not None:
            for (plant, fleet, (started, made), shift), group in luck_groups(plants, policies, shifts):
                luck = Luck(seed, fleet)
                odds = Odds(Purpose.START, Purpose.START_STUCK, plant.start_failure, started, shift)
                self._start_lottery.enter(group, plant, odds, luck)
                if self._make_lottery is not None:
                    odds = Odds(Purpose.PROVISION, Purpose.PROVISION_STUCK, 0.0, made, shift)
                    self._make_lottery.enter(group, plant, odds, luck)
        fails = any(plant.start_failure for plant in plants)
        quarantine = _ints([whole_ticks(plant.quarantine_s, tick_s) for plant in plants])
        self._quarantine = Delay(quarantine) if fails else None
        self.quarantined: Vms | None = np.zeros(lanes, np.int32) if fails else None

    def _set_up_stops(self, plants: Sequence[PlantSettings], tick_s: float) -> None:
        drain = _ints([math.ceil(plant.drain_s / tick_s - 1e-9) for plant in plants])
        self.drains: Bool = drain > 0
        self.any_drains = bool(self.drains.any())
        self._drain_delay = Delay(np.maximum(drain, 1), self._kind) if self.any_drains else None
        self._stop_delay = Delay(_whole(np.array([plant.stop_s for plant in plants]), tick_s), self._kind)
        self._drain_s = drain * tick_s

    def _set_up_ages(
        self, plants: Sequence[PlantSettings], policies: Sequence[Policy], tick_s: float
    ) -> None:
        on_s = np.array([policy.guards.minimum_on_time_s for policy in policies])
        self._on_ticks = _ints([math.ceil(each / tick_s - 1e-9) for each in on_s])
        self._all_alike = bool((self._on_ticks == self._on_ticks[0]).all())
        minimum_s = np.array([plant.minimum_billed_s for plant in plants])
        # A VM stopped after its billing minimum costs what it ran; only younger ones are charged more.
        young_s = np.where(on_s + self._drain_s < minimum_s, minimum_s, 0.0)
        self._young_ticks = math.ceil(float(young_s.max()) / tick_s - 1e-9)
        self._minimum_s = minimum_s
        self.has_extras = self.lucky or self._young_ticks > 0
        self._came_rows = max(int(self._on_ticks.max()), self._young_ticks) + 2
        self._came: Vms = np.zeros((self._came_rows, len(plants)), self._kind)
        self._came_flat = self._came.reshape(-1)
        self._cells = np.arange(len(plants))
        self.left: Vms = np.zeros(len(plants), self._kind)
        self._lead_ins: Float = np.zeros((self._came_rows if self._young_ticks else 0, len(plants)))
        # An array of zeros, because numpy's maximum with a scalar is several times as slow.
        self._nothing: Vms = np.zeros(len(plants), self._kind)
        self._ripe: Vms = np.zeros(len(plants), self._kind)
        self.stoppable: Vms = self._ripe
        self._since_came, self._longest_on = 0, int(self._on_ticks.max())

    def _set_up_refusals(self, plants: Sequence[PlantSettings]) -> None:
        def buckets(budgets: list[Budget | None]) -> Bucket | None:
            return Bucket(budgets, self._tick_s) if any(budgets) else None

        self._start_bucket = buckets([plant.start_budget for plant in plants])
        self._make_bucket = buckets([plant.provision_budget for plant in plants])
        self._stop_bucket = buckets([plant.stop_budget for plant in plants])
        self._hold_s = np.array([plant.dry_hold_s for plant in plants])
        self._start_from_s = np.full(len(plants), -np.inf)
        self._make_from_s = np.full(len(plants), -np.inf)
        # Lotteries, draining and token buckets must be updated at every tick, so with any of them no tick takes the short path.
        self._order_delays = [delay for delay in (self._start_delay, self._make_delay) if delay is not None]
        self._may_skip_idle = not (self.lucky or self.any_drains or self._buckets())

    @property
    def none_starts(self) -> bool:
        """Whether it is certain, without reading the counts, that no VM is starting."""
        if self._start_delay is None or (self._make_delay is not None and not self._make_delay.empty):
            return False
        return self._start_delay.empty

    @property
    def none_arrived(self) -> bool:
        """Whether it is certain, without reading the counts, that no VM came into service from stopped at this tick."""
        return self._start_delay is not None and self._start_delay.none_out

    # ── a tick ─────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, tick: int) -> None:
        """Advance the fleets to a tick.

        Args:
            tick: Counted from 0 at the start of the run; each tick once, in order.
        """
        self._now_s = tick * self._tick_s
        if self._start_delay is None:
            self._advance_with_luck(tick)
        else:
            self.arrived = self._start_delay.out(tick)
            if not self._start_delay.none_out:
                self.in_service += self.arrived
                self.starting -= self.arrived
            if self._make_delay is not None:
                self.made = self._make_delay.out(tick)
                self.in_service += self.made
                self.starting -= self.made
        if self._drain_delay is not None:
            drained = self._drain_delay.out(tick)
            self.draining -= drained
            self.stopping += drained
            self._leaving = drained
        back = self._stop_delay.out(tick)
        if not self._stop_delay.none_out:
            self.stopping -= back
            self.stopped += back
        self._age(tick)
        if self._spells is not None or self._quarantine is not None:
            self.startable = self._startable()

    def _advance_with_luck(self, tick: int) -> None:
        """Advance starts and provisionings whose times and outcomes are drawn."""
        assert self._start_lottery is not None
        assert self.given_up is not None
        due = self._start_lottery.out(tick)
        self.arrived = due.ready
        self.extra_s = due.billed_s
        self._arrive(due)
        if self._quarantine is not None and self.quarantined is not None:
            self.failed = due.failed
            self.starting -= due.failed
            self.stopped += due.failed
            self.quarantined += due.failed
            self.quarantined -= self._quarantine.out(tick)
            self._quarantine.put(tick, due.failed)
        if self._make_lottery is not None:
            due = self._make_lottery.out(tick)
            self.made = due.ready
            self.extra_s = self.extra_s + due.billed_s
            self._arrive(due)

    def _arrive(self, due: Arrivals) -> None:
        assert self.given_up is not None
        self.in_service += due.ready
        self.starting += due.late - due.ready - due.given_up
        self.given_up += due.given_up - due.late

    def _age(self, tick: int) -> None:
        """Update how many VMs have come so far, and how many of those in service have been there for their minimum on-time."""
        quiet = tick > 0 and self.none_arrived and self.made is None and not self._young_ticks
        self._since_came = self._since_came + 1 if quiet else 0
        rows = self._came_rows
        # If none came for that many ticks, all rows of the ring are equal.
        if self._since_came < rows:
            came = self._came[tick % rows]
            np.add(self._came[(tick - 1) % rows], self.arrived, out=came)
            if self.made is not None:
                came += self.made
            if tick == 0:
                came += self.in_service
        if self._young_ticks:
            self._note_lead_in(tick)
        if self._since_came >= self._longest_on:
            self.stoppable = self.in_service
            return
        if self._all_alike:
            ripe = self._came[(tick - int(self._on_ticks[0])) % rows]
        else:
            at = (tick - self._on_ticks) % rows
            at *= len(self._cells)
            at += self._cells
            ripe = self._came_flat.take(at)
        self.stoppable = np.subtract(ripe, self.left, out=self._ripe)
        np.maximum(self.stoppable, self._nothing, out=self.stoppable)

    def act(self, tick: int, start: Vms, provision: Vms, stop: Vms) -> None:
        """Carry out a decision as far as the provider accepts it.

        If `start` or `stop` is the very array `provision`, both are all zeros, as in most ticks of lanes that are alike.

        Args:
            tick: As in `advance`.
            start: int (L,), at most `startable`.
            provision: int (L,).
            stop: int (L,), at most `stoppable`.
        """
        if stop is self.in_service:
            stop = stop.copy()
        if self._may_skip_idle and self._spells is None:
            if start is provision or stop is provision:
                self._act_partly(tick, start, provision, stop)
                return
        elif self._spells is not None:
            start, provision = self._refuse_if_dry(tick, start, provision)
        if self._start_bucket is not None:
            start = self._start_bucket.accepted(start)
        if self._make_bucket is not None:
            provision = self._make_bucket.accepted(provision)
        if self._stop_bucket is not None:
            stop = self._stop_bucket.accepted(stop)
        self.starts, self.provisions, self.stops = start, provision, stop
        self._order(tick, start, provision)
        self._begin_stops(tick, stop)

    def _act_partly(self, tick: int, start: Vms, provision: Vms, stop: Vms) -> None:
        """Take the short path of `act`: nothing is provisioned, and either nothing is started or nothing is stopped."""
        self.starts, self.provisions, self.stops = start, provision, stop
        if start is not provision:
            self._order(tick, start, provision)
        else:
            for delay in self._order_delays:
                delay.put_none(tick)
        if stop is not provision:
            self._begin_stops(tick, stop)
        else:
            self._stop_delay.put_none(tick)

    def _order(self, tick: int, start: Vms, provision: Vms) -> None:
        number = self._first + tick
        if self._start_delay is not None:
            self._start_delay.put(tick, start)
        elif self._start_lottery is not None:
            self._start_lottery.order(tick, start, number)
        self.starting += start
        self.stopped -= start
        if self._make_delay is not None:
            self._make_delay.put(tick, provision)
        elif self._make_lottery is not None:
            self._make_lottery.order(tick, provision, number)
        else:
            return
        self.starting += provision
        self.provisioned += provision

    def _begin_stops(self, tick: int, stop: Vms) -> None:
        """Let VMs drain, or stop them at once in lanes without draining."""
        if self._young_ticks:
            self._charge_young(tick, stop)
        self.left += stop
        self.in_service -= stop
        if self._drain_delay is None:
            self._stop_delay.put(tick, stop)
            self.stopping += stop
            return
        draining = stop * self.drains
        self._drain_delay.put(tick, draining)
        self.draining += draining
        at_once = stop - draining
        self.stopping += at_once
        self._stop_delay.put(tick, at_once + self._leaving)

    # ── refusals ───────────────────────────────────────────────────────────────────────────────────────

    def _refuse_if_dry(self, tick: int, start: Vms, provision: Vms) -> tuple[Vms, Vms]:
        """Refuse starts and provisionings in dry spells, and hold off new attempts for a while after such a refusal."""
        assert self._spells is not None
        now_s = self._now_s
        provision = provision * (now_s >= self._make_from_s)
        dry = self._spells.at(tick)
        if dry is None:
            return start, provision
        self._start_from_s = np.where(dry & (start > 0), now_s + self._hold_s, self._start_from_s)
        self._make_from_s = np.where(dry & (provision > 0), now_s + self._hold_s, self._make_from_s)
        return start * ~dry, provision * ~dry

    def _startable(self) -> Vms:
        if self._spells is None and self._quarantine is None:
            # The array itself rather than a copy, so that it is always up to date.
            return self.stopped
        free = self.stopped if self.quarantined is None else self.stopped - self.quarantined
        return free * (self._now_s >= self._start_from_s)

    # ── the minimum of a start ─────────────────────────────────────────────────────────────────────────

    def _note_lead_in(self, tick: int) -> None:
        """Note the mean seconds that the VMs which come at this tick were billed for before they served."""
        row = self._lead_ins[tick % self._came_rows]
        if self._start_delay is None:
            assert self.extra_s is not None
            billed_s = self.extra_s
        else:
            self.extra_s = np.zeros(len(row))
            billed_s = self.arrived * self.lead_in_s
            if self.made is not None:
                billed_s += self.made * self.made_lead_in_s
        came = self.arrived if self.made is None else self.arrived + self.made
        np.divide(billed_s, np.maximum(came, 1), out=row)

    def _charge_young(self, tick: int, stop: Vms) -> None:
        """Bill stopped VMs for what they lack to their billing minimum.

        Exact if all start times are equal. If they are drawn, VMs that came at one tick are taken to have begun together.
        """
        if not stop.any():
            return
        assert self.extra_s is not None
        for age in range(min(self._young_ticks, tick + 1)):
            at = (tick - age) % self._came_rows
            # Differences of running counts stay right when the counts wrap around.
            up_to_here, before = self._came[at] - self.left, self._came[at - 1] - self.left
            of_these = np.minimum(up_to_here, stop) - np.maximum(before, 0)
            ran_s = age * self._tick_s + self._drain_s + self._lead_ins[at]
            self.extra_s += np.maximum(of_these, 0) * np.maximum(self._minimum_s - ran_s, 0.0)

    # ── states ─────────────────────────────────────────────────────────────────────────────────────────

    def state(self, tick: int) -> list[NDArray[Any]]:
        """Return all that the future depends on, just before `tick`: arrays (n, L), equal where the futures are equal.

        Counts since the start of the run and moments are given relative to now, so that lanes that began at different times
        can be compared.
        """
        now_s = tick * self._tick_s
        rows, oldest = self._came_rows, int(self._on_ticks.max())
        ages = [np.maximum(self._came[(tick - 1 - age) % rows] - self.left, 0) for age in range(oldest)]
        found: list[NDArray[Any]] = [np.stack([*self._counts(), *ages])]
        found += [delay.ahead(tick) for delay in self._delays()]
        for lottery in self._lotteries():
            found += lottery.ahead(tick)
        found += [bucket.tokens[np.newaxis] for bucket in self._buckets()]
        held_s = np.stack([self._start_from_s, self._make_from_s])
        found += [np.maximum(held_s - now_s, 0.0), self._recent_lead_ins(tick)]
        return found

    def go_on_from(self, other: Plant, lanes: Int, tick: int) -> None:
        """Take over the state of some lanes of another plant, with the same settings, just before `tick`."""
        for mine, theirs in zip(self._counts(), other._counts(), strict=True):
            mine[:] = theirs[lanes]
        for delay, others in zip(self._delays(), other._delays(), strict=True):
            delay.go_on_from(others, lanes, tick)
        for lottery, its in zip(self._lotteries(), other._lotteries(), strict=True):
            lottery.go_on_from(its, lanes, tick)
        for bucket, full in zip(self._buckets(), other._buckets(), strict=True):
            bucket.tokens = full.tokens[lanes]
        self._start_from_s, self._make_from_s = other._start_from_s[lanes], other._make_from_s[lanes]
        self.left = other.left[lanes]
        self._since_came = 0
        for back in range(1, min(self._came_rows, other._came_rows) + 1):
            mine_at, theirs_at = (tick - back) % self._came_rows, (tick - back) % other._came_rows
            self._came[mine_at] = other._came[theirs_at][lanes]
            if self._young_ticks:
                self._lead_ins[mine_at] = other._lead_ins[theirs_at][lanes]

    def _counts(self) -> list[Vms]:
        found = [self.in_service, self.starting, self.draining, self.stopping, self.stopped, self.provisioned]
        return found + [each for each in (self.given_up, self.quarantined) if each is not None]

    def _delays(self) -> list[Delay]:
        delays = (self._start_delay, self._make_delay, self._drain_delay, self._stop_delay, self._quarantine)
        return [delay for delay in delays if delay is not None]

    def _lotteries(self) -> list[Lottery]:
        return [each for each in (self._start_lottery, self._make_lottery) if each is not None]

    def _buckets(self) -> list[Bucket]:
        buckets = (self._start_bucket, self._make_bucket, self._stop_bucket)
        return [bucket for bucket in buckets if bucket is not None]

    def _recent_lead_ins(self, tick: int) -> Float:
        """Return the mean billed seconds before service of recent arrivals; 0 at ticks at which none came."""
        if not self._young_ticks:
            return self._lead_ins
        back = (tick - 1 - np.arange(self._young_ticks)) % self._came_rows
        came = self._came[back] - self._came[back - 1]
        return np.where(came > 0, self._lead_ins[back], 0.0)


def _ints(values: Sequence[int]) -> Int:
    return np.array(values, np.int64)


def _whole(seconds: Float, tick_s: float) -> Int:
    return _ints([whole_ticks(float(each), tick_s) for each in seconds])
