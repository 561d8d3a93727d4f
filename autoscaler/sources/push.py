"""Pushed samples: kept until the next tick reads them, or until they are too old to be useful.

Why: a source that is polled shows a burst up to a tick late. A load balancer or the service itself knows of it first, and can report it.

Rules of this file: storage is bounded per fleet and in total. Pushing the same sample again changes nothing, and the latest one by its
own stamp counts, in whatever order they arrive. A refusal is a value with a reason from a closed list, never an exception. Nothing here
knows HTTP.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoscaler.core.demand import CLOCK_SKEW_S
from autoscaler.core.types import Signal
from autoscaler.errors import ConfigError
from autoscaler.ports import Clock, FleetReadings, Vm
from autoscaler.ports.pushing import Intake, PushedSample, Refusal, Result, Taken
from autoscaler.words import some

IDS_KEPT = 1000
"""Number of recent sample ids that are remembered per fleet."""
SHOWN = 10
"""Most refusals that are reported individually; all are counted."""
FORGET_AFTER_AGES = 10.0
"""Samples older than this many times the fleet's `max_age_s` are deleted."""
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class PushLimits:
    """How many samples are kept.

    Attributes:
        vms_per_fleet: Most VMs of one fleet whose latest samples are kept.
        vms: Most VMs of all fleets whose latest samples are kept.
    """

    vms_per_fleet: int = 10_000
    vms: int = 100_000


@dataclass(slots=True)
class _Latest:
    """The latest sample of a VM or fleet."""

    at_s: float
    value: float
    received_s: float
    series: str


@dataclass(slots=True)
class _Held:
    """The samples of one fleet; `total` is the sum of the latest values."""

    latest: dict[str, _Latest] = field(default_factory=dict)
    ids: OrderedDict[str, None] = field(default_factory=OrderedDict)
    total: float = 0.0


class PushedSamples:
    """Keeps the pushed samples of all fleets.

    Args:
        clock: Clock for times of arrival.
        limits: How much is kept.
    """

    def __init__(self, clock: Clock, limits: PushLimits | None = None) -> None:
        self._clock = clock
        self._limits = limits or PushLimits()
        self._sources: dict[str, list[PushSource]] = {}
        self._held: dict[str, _Held] = {}
        self._count = 0

    def source(self, intake: Intake) -> PushSource:
        """Create the source of a fleet. Samples for the fleet are accepted until it is closed."""
        source = PushSource(self, intake, self._clock)
        others = self._sources.setdefault(intake.fleet, [])
        if others and others[-1].intake.signal is not intake.signal:
            self._forget(intake.fleet)
        others.append(source)
        return source

    def intake(self, fleet: str) -> Intake | None:
        """What a fleet accepts; None if it accepts no samples."""
        sources = self._sources.get(fleet)
        return sources[-1].intake if sources else None

    @property
    def intakes(self) -> tuple[Intake, ...]:
        """What each fleet accepts that accepts samples."""
        return tuple(sources[-1].intake for sources in self._sources.values())

    def take(
        self, samples: Iterable[PushedSample], fleets: Container[str], may: Container[str] | None = None
    ) -> Taken:
        """Take samples, each independently of the others.

        Args:
            samples: Samples in the order of the request.
            fleets: Names of all fleets in use, whether or not they accept samples.
            may: Fleets that the sender may push for; None for all.
        """
        now_s = self._clock.now()
        results: Counter[Result] = Counter()
        refusals: list[Refusal] = []
        touched: set[str] = set()
        for at, sample in enumerate(samples):
            result, text = self._taken(sample, now_s, fleets, may)
            results[result] += 1
            if result in (Result.TAKEN, Result.REPLACED):
                touched.add(sample.fleet)
            elif result.refused and len(refusals) < SHOWN:
                refusals.append(Refusal(at, result, text))
        return Taken(results, tuple(refusals), frozenset(touched))

    def sum_of(self, fleet: str) -> tuple[float, int]:
        """The sum of a fleet's latest values, and the number of VMs in it. Only a hint, because some may be gone or old."""
        held = self._held.get(fleet)
        return (0.0, 0) if held is None else (held.total, len(held.latest))

    def latest(self, fleet: str) -> Mapping[str, _Latest]:
        """The latest samples of a fleet by VM. Samples that are much too old are deleted first."""
        held, intake = self._held.get(fleet), self.intake(fleet)
        if held is None or intake is None:
            return {}
        self._prune(held, self._clock.now() - FORGET_AFTER_AGES * intake.max_age_s)
        held.total = math.fsum(each.value for each in held.latest.values())
        return held.latest

    def leave(self, source: PushSource) -> None:
        """Remove a closed source. If it was its fleet's last one, the fleet's samples are deleted."""
        sources = self._sources.get(source.intake.fleet, [])
        if source in sources:
            sources.remove(source)
        if not sources and self._sources.pop(source.intake.fleet, None) is not None:
            self._forget(source.intake.fleet)

    # ── one sample ─────────────────────────────────────────────────────────────────────────────────────

    def _taken(
        self, sample: PushedSample, now_s: float, fleets: Container[str], may: Container[str] | None
    ) -> tuple[Result, str]:
        intake = self.intake(sample.fleet)
        found = _unfit(sample, intake, fleets, may) or _unlikely(sample, intake, now_s)
        if found is not None or intake is None:
            return found or (Result.UNKNOWN_FLEET, "")
        held = self._held.setdefault(sample.fleet, _Held())
        if sample.id and sample.id in held.ids:
            return Result.DUPLICATE, ""
        before = held.latest.get(sample.vm)
        if before is None:
            result = self._first(held, sample, intake, now_s)
        else:
            result = _next(held, before, sample, intake, now_s)
        if sample.id and not result[0].refused:
            held.ids[sample.id] = None
            if len(held.ids) > IDS_KEPT:
                held.ids.popitem(last=False)
        return result

    def _first(self, held: _Held, sample: PushedSample, intake: Intake, now_s: float) -> tuple[Result, str]:
        if sample.ended:
            return Result.ENDED, ""
        if len(held.latest) >= self._limits.vms_per_fleet or self._count >= self._limits.vms:
            self._prune(held, now_s - intake.max_age_s)
        if len(held.latest) >= self._limits.vms_per_fleet or self._count >= self._limits.vms:
            text = (
                f"samples of {self._count} VMs are kept already ({len(held.latest)} of fleet {sample.fleet}); push for "
                "VMs that exist only, or raise push_max_vms"
            )
            return Result.FULL, text
        held.latest[sample.vm] = _Latest(sample.at_s, sample.value, now_s, sample.series)
        held.total += sample.value
        self._count += 1
        return Result.TAKEN, ""

    def _prune(self, held: _Held, before_s: float) -> None:
        gone = [vm for vm, each in held.latest.items() if each.at_s < before_s]
        for vm in gone:
            held.total -= held.latest.pop(vm).value
        self._count -= len(gone)

    def _forget(self, fleet: str) -> None:
        held = self._held.pop(fleet, None)
        if held is not None:
            self._count -= len(held.latest)


def _next(
    held: _Held, before: _Latest, sample: PushedSample, intake: Intake, now_s: float
) -> tuple[Result, str]:
    """Replace the previous sample if the new one is later, and return the result."""
    if before.at_s > now_s + CLOCK_SKEW_S:
        # The clock was set back: whatever comes now is later.
        before.at_s = before.received_s = -math.inf
    other = bool(sample.series and before.series and sample.series != before.series)
    if sample.at_s < before.at_s or (sample.ended and other):
        return Result.OUTDATED, ""
    if sample.ended:
        before.at_s = -math.inf
        return Result.ENDED, ""
    if other and now_s - before.received_s <= intake.max_age_s and before.at_s > -math.inf:
        whose = f"VM {sample.vm} of fleet {sample.fleet}" if sample.vm else f"fleet {sample.fleet}"
        text = (
            f"{whose} has values of two series: {before.series} and {sample.series}; select one in signal.push.metric, or "
            "sum them with a recording rule"
        )
        return Result.SEVERAL_SERIES, text
    same_time = sample.at_s == before.at_s
    if same_time and sample.value == before.value:
        return Result.DUPLICATE, ""
    held.total += sample.value - before.value
    before.at_s, before.value = sample.at_s, sample.value
    before.received_s, before.series = now_s, sample.series
    return Result.REPLACED if same_time else Result.TAKEN, ""


def _unfit(
    sample: PushedSample, intake: Intake | None, fleets: Container[str], may: Container[str] | None
) -> tuple[Result, str] | None:
    """What is wrong with the sample's fleet or VM; None if nothing is."""
    fleet = sample.fleet
    if may is not None and fleet not in may:
        text = f"this token may not push for fleet {fleet!r}; use the fleet's own, or add it to fleets= of the token"
        return Result.NOT_ALLOWED, text
    if intake is None and fleet in fleets:
        text = f"fleet {fleet} does not read pushed samples; write `source: push` in its policy, or push nothing for it"
        return Result.NOT_ON_PUSH, text
    if intake is None:
        return Result.UNKNOWN_FLEET, f"no fleet is called {fleet!r}; write the name as in its policy"
    if intake.signal is Signal.TOTAL and sample.vm:
        text = f"fleet {fleet} takes one value for all of its VMs (kind total or queue); leave the VM out"
        return Result.VM_NOT_ASKED, text
    if intake.signal is not Signal.TOTAL and not sample.vm:
        by = "address" if intake.by_address else "id"
        text = (
            f"fleet {fleet} is measured per VM; name the VM of the sample by its {by}, or write `kind: total`"
        )
        return Result.VM_MISSING, text
    return None


def _unlikely(sample: PushedSample, intake: Intake | None, now_s: float) -> tuple[Result, str] | None:
    """What is wrong with the sample's value or time; None if nothing is."""
    if intake is None:
        return None
    if sample.ended:
        return None
    value, age_s = sample.value, now_s - sample.at_s
    if not math.isfinite(value):
        return Result.NOT_A_NUMBER, f"the value {value} is not a number; send nothing if nothing is known"
    if value < 0.0:
        return (
            Result.OUT_OF_RANGE,
            f"the value {value:g} is below 0; send the level or the rate, not a change",
        )
    if intake.signal is Signal.UTILISATION and value > 1.0:
        text = f"the utilisation {value:g} is above 1; send a share from 0 to 1, not a percentage"
        return Result.OUT_OF_RANGE, text
    if not math.isfinite(sample.at_s) or age_s < -CLOCK_SKEW_S:
        text = (
            f"the stamp is {-age_s:.0f} s ahead of our clock; send epoch seconds (not milliseconds), and set the sender's "
            "clock by NTP"
        )
        return Result.IN_THE_FUTURE, text
    if age_s > intake.max_age_s:
        text = (
            f"the sample is {age_s:.0f} s old and fleet {sample.fleet} takes none older than {intake.max_age_s:g} s "
            "(signal.max_age); send it sooner, and set the sender's clock by NTP"
        )
        return Result.TOO_OLD, text
    return None


class PushSource:
    """A `MetricSource` that reads the pushed samples of one fleet. Created by `PushedSamples.source`.

    Args:
        pushed: Keeps the samples.
        intake: What the fleet accepts.
        clock: Clock for the age of samples.
    """

    answers_at_once = True
    """Reading never waits; see `autoscaler.at_once`."""

    def __init__(self, pushed: PushedSamples, intake: Intake, clock: Clock) -> None:
        self.intake = intake
        self._pushed = pushed
        self._clock = clock

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Return the latest sample of each of these VMs, or of the fleet for a total."""
        latest = self._pushed.latest(self.intake.fleet)
        now_s = self._clock.now()
        known = {vm: each for vm, each in latest.items() if -math.inf < each.at_s <= now_s + CLOCK_SKEW_S}
        if self.intake.signal is Signal.TOTAL:
            named = {"": ""}
        elif self.intake.by_address:
            named = {vm.id: vm.address for vm in vms if vm.address}
        else:
            named = {vm.id: vm.id for vm in vms}
        found = [(vm, known[name]) for vm, name in named.items() if name in known]
        return FleetReadings(
            tuple(vm for vm, _ in found),
            np.array([each.value for _, each in found], np.float64),
            # A sender's clock may be slightly ahead of ours; this was checked when the sample arrived.
            np.array([min(each.at_s, now_s) for _, each in found], np.float64),
            self._missing(known, named) if named and not found else "",
            np.array([each.received_s for _, each in found], np.float64),
        )

    async def close(self) -> None:
        """Accept no more samples."""
        self._pushed.leave(self)

    def _missing(self, known: Mapping[str, object], wanted: Mapping[str, str]) -> str:
        if not known:
            return (
                f"nothing has been pushed for fleet {self.intake.fleet}; see what was refused in the status, and whether the "
                "sender runs"
            )
        by = "address" if self.intake.by_address else "id"
        return (
            f"samples are pushed for {some(sorted(known), MOST_NAMED)}, and none of them is a VM in service ({some(sorted(wanted.values()), MOST_NAMED)}), by "
            f"its {by}; see signal.push.vms_by"
        )


def not_taking(fleet: str) -> ConfigError:
    """Build the error for a fleet that needs pushed samples, while the program does not accept them."""
    return ConfigError(
        f"fleet {fleet}: signal.source is push: samples reach a running daemon only, and only where the setting "
        "push_token_file names a file with tokens"
    )
