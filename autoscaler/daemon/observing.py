"""Observes all fleets: every listing and reading of a tick concurrently, under one deadline, with failures as values.

Rules of this file: whatever a source or a provider does (hang, raise, return nonsense), the result for its own fleets says so
in words, and no other result waits for it beyond the deadline. A source, provider or probe that hung is not waited for until
it answers in time again (`hanging_sources`), as long as there is another one to wait for. All calls begin before any is
awaited; calls that are answered at once cost no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import is_
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoscaler.at_once import Begun, CompletedCall, answers_at_once, begun
from autoscaler.core.rules import is_fixed
from autoscaler.daemon.bounded import ended
from autoscaler.daemon.hanging_sources import HangingSources
from autoscaler.daemon.vms.listing_rows import Rows
from autoscaler.errors import AutoscalerError
from autoscaler.ports import (
    Clock,
    FleetReadings,
    Listing,
    MetricSource,
    Provider,
    ReadinessProbe,
    Vm,
    name_of,
)

T = TypeVar("T")
K = TypeVar("K")

_NONE = Rows()
_NOT_READ = (
    ", the longest that a tick may read; check that what the source queries is running (with a shorter `timeout`, the "
    "source itself says what hangs)"
)


class Observer:
    """Asks all providers, sources and probes, and turns every failure into a value.

    It keeps the last rows of each provider, so that unchanged rows stay the same objects.

    Args:
        clock: The source of the times in listings.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[int, Rows] = {}
        self._names: dict[int, str] = {}
        self._real: dict[int, Rows] = {}
        """Real VMs, by the first shadow provider of those that share one listing of them."""
        self._shares: dict[int, int] = {}
        """By shadow provider, the key in `_real` of the listing that it shares."""
        self._hanging, self._unlisted, self._unready = HangingSources(), HangingSources(), HangingSources()
        """The sources, providers and probes that hang."""
        self._readings: dict[str, tuple[FleetReadings, FleetReadings]] = {}
        """By fleet, the last read-only readings: as the source returned them, and after checking."""

    async def observe(
        self,
        providers: Iterable[Provider],
        sources: Mapping[str, MetricSource],
        vms: Mapping[str, Sequence[Vm]],
        timeout_s: float,
    ) -> tuple[dict[int, Listing], dict[str, FleetReadings]]:
        """List VMs and read metrics concurrently, under one deadline.

        Args:
            providers: Providers to list; one that occurs several times is asked once.
            sources: The source of each fleet.
            vms: By fleet, the VMs whose metrics are read.
            timeout_s: Longest wait for all of it, in seconds of the event loop.

        Returns:
            One listing per distinct provider, keyed by `id(provider)`, and the readings of each fleet. A failure is an
                incomplete listing, or readings with an error text.
        """
        asked_s = self._clock.now()
        distinct = {id(provider): provider for provider in providers}
        self._names = {key: name_of(provider) for key, provider in distinct.items()}
        if distinct and self._rows.keys() - distinct.keys():
            self._rows = {key: rows for key, rows in self._rows.items() if key in distinct}
        began_s = asyncio.get_running_loop().time()
        listings = {
            key: _asked(provider, provider.list_vms)
            for key, provider in distinct.items()
            if self._unlisted.look(key, provider, began_s)
        }
        readings = {
            fleet: _asked(source, partial(source.read, vms[fleet]))
            for fleet, source in sources.items()
            if self._hanging.look(fleet, source, began_s)
        }
        lists = _worth_waiting_for(listings, self._unlisted)
        waited_for = _worth_waiting_for(readings, self._hanging)
        calls = [listings[key] for key in lists] + [readings[fleet] for fleet in waited_for]
        await _waited(calls, timeout_s)
        listed: dict[int, Listing] = {}
        for key, provider in distinct.items():
            answer = self._listing_or_failure(
                provider, listings.get(key), began_s, timeout_s, waited=key in lists
            )
            listed[key] = (
                Listing((), False, asked_s, self._clock.now(), answer) if isinstance(answer, str) else answer
            )
            if not listed[key].complete and (name := self._names[key]):
                listed[key] = replace(listed[key], error=f"{name}: {listed[key].error}")
        read: dict[str, FleetReadings] = {}
        for fleet, source in sources.items():
            call = readings.get(fleet)
            told = self._readings_or_failure(
                fleet, source, call, began_s, timeout_s, waited=fleet in waited_for
            )
            read[fleet] = FleetReadings.none(told) if isinstance(told, str) else told
        if distinct:
            self._hanging.keep(sources)
            self._unlisted.keep(distinct)
            await self._take_in(listed)
        return listed, read

    async def ready(
        self, probes: Mapping[str, ReadinessProbe], vms: Mapping[str, Sequence[Vm]], timeout_s: float
    ) -> dict[str, frozenset[str]]:
        """Return the ids of the ready VMs of each fleet in `vms`; fleets without VMs are not asked.

        A probe that hung is never waited for, not even if it is the only one asked: fleets that ask no probe would wait
        with it.
        """
        began_s = asyncio.get_running_loop().time()
        asked = {
            fleet: _asked(probes[fleet], partial(probes[fleet].ready, running))
            for fleet, running in vms.items()
            if running and self._unready.look(fleet, probes[fleet], began_s)
        }
        waited_for = [fleet for fleet in asked if fleet not in self._unready]
        await _waited([asked[fleet] for fleet in waited_for], timeout_s)
        found: dict[str, frozenset[str]] = {fleet: frozenset() for fleet, running in vms.items() if running}
        for fleet, call in asked.items():
            self._unready.heard(fleet, probes[fleet], call, began_s, timeout_s)
            if call.done() or fleet in waited_for:
                ids = _answer(call, _checked_ids, fleet, timeout_s)
                found[fleet] = frozenset() if isinstance(ids, str) else ids
        self._unready.keep(vms)
        return found

    async def _take_in(self, listed: Mapping[int, Listing]) -> None:
        """Split the listings by fleet."""
        first: dict[int, int] = {}
        for key, listing in listed.items():
            if (last := self._rows.get(key, _NONE)).vms is not listing.vms:
                self._rows[key] = await last.followed_by(listing.vms)
            if listing.real is None:
                continue
            # Shadows that share one provider also share its listing of the real VMs.
            shared = self._shares[key] = first.setdefault(id(listing.real), key)
            if shared == key and (last := self._real.get(key, _NONE)).vms is not listing.real:
                self._real[key] = await last.followed_by(listing.real)
        if len(self._shares) > len(listed):
            self._shares = {key: shared for key, shared in self._shares.items() if key in listed}
        if len(self._real) > len(first):
            kept = set(self._shares.values())
            self._real = {key: rows for key, rows in self._real.items() if key in kept}

    def _listing_or_failure(
        self,
        provider: Provider,
        call: Begun[Listing] | None,
        began_s: float,
        timeout_s: float,
        *,
        waited: bool,
    ) -> Listing | str:
        """Return a provider's listing, or the failure in words.

        `call` is None if the provider was not asked because it hangs.
        """
        key = id(provider)
        if isinstance(call, CompletedCall) and key not in self._unlisted:
            return _answer(call, self._checked, key, timeout_s)
        if call is not None:
            self._unlisted.heard(key, provider, call, began_s, timeout_s)
            if call.done() or waited:
                return _answer(call, self._checked, key, timeout_s)
        return f"no answer within {timeout_s:g} s"

    def _readings_or_failure(
        self,
        fleet: str,
        source: MetricSource,
        call: Begun[FleetReadings] | None,
        began_s: float,
        timeout_s: float,
        *,
        waited: bool,
    ) -> FleetReadings | str:
        """Return a source's readings, or the failure in words.

        `call` is None if the source was not asked because it hangs.
        """
        if isinstance(call, CompletedCall) and fleet not in self._hanging:
            return _answer(call, self._checked_readings, fleet, timeout_s)
        if call is not None:
            self._hanging.heard(fleet, source, call, began_s, timeout_s)
            if call.done() or waited:
                return _answer(call, self._checked_readings, fleet, timeout_s, _NOT_READ)
        # The call continues in the background, and a later tick uses its answer.
        return f"no answer within {timeout_s:g} s{_NOT_READ}"

    def named(self, listings: Mapping[int, Listing]) -> list[tuple[str, Listing]]:
        """Return the listings of this tick, each with the name of its provider."""
        return [(self._names[key], listing) for key, listing in listings.items()]

    def rows_by_fleet(self, provider: int) -> Mapping[str, tuple[Vm, ...]]:
        """Return the VMs of the provider's last listing by owning fleet.

        A fleet whose rows have not changed gets the same tuple again.
        """
        return self._rows.get(provider, _NONE).by_fleet

    def real_by_fleet(self, provider: int) -> Mapping[str, tuple[Vm, ...]]:
        """Return the real VMs of a shadow provider's last listing by owning fleet.

        A fleet whose rows have not changed gets the same tuple again.
        """
        return self._real.get(self._shares.get(provider, provider), _NONE).by_fleet

    def _checked(self, provider: int, listing: Listing) -> Listing:
        if not isinstance(listing, Listing):
            raise TypeError("this is no listing")
        last = self._rows.get(provider)
        if last is not None and listing.vms is last.vms:
            return listing
        if not all(isinstance(vm, Vm) for vm in listing.vms):
            raise TypeError("the listing contains something other than VMs")
        return listing if type(listing.vms) is tuple else replace(listing, vms=tuple(listing.vms))

    def _checked_readings(self, fleet: str, readings: FleetReadings) -> FleetReadings:
        last = self._readings.get(fleet)
        if last is not None and last[0] is readings:
            return last[1]
        checked = _checked_readings(readings)
        arrays = checked.values, checked.observed_at_s, checked.received_at_s, checked.utilisation
        if all(array is None or is_fixed(array) for array in arrays):
            self._readings[fleet] = readings, checked
        else:
            self._readings.pop(fleet, None)
        return checked


def _worth_waiting_for(calls: Mapping[K, Begun[Any]], hanging: HangingSources) -> Collection[K]:
    """Return the keys whose calls are waited for: those of adapters that do not hang, or all if every adapter hangs."""
    return ([key for key in calls if key not in hanging] or calls) if hanging else calls


def _asked(adapter: object, call: Callable[[], Awaitable[T]]) -> Begun[T]:
    """Begin the call; an exception at once becomes its result."""
    try:
        return begun(call, at_once=answers_at_once(adapter))
    except Exception as error:  # noqa: BLE001  as in `_answer`
        return CompletedCall(error=error)


def _answer(call: Begun[T], check: Callable[[K, T], T], key: K, timeout_s: float, late: str = "") -> T | str:
    """Return what the call returned, once checked; or, if it failed or the check did, the failure in words.

    Args:
        call: The call; its wait is over.
        check: Validates and normalises the result for a key; raises if the result is invalid.
        key: The provider or fleet that was asked.
        timeout_s: How long the call was waited for, for the message.
        late: Text to append if no answer came in time.
    """
    try:
        return check(key, ended(call))
    except TimeoutError:
        return f"no answer within {timeout_s:g} s{late}"
    except AutoscalerError as error:
        return str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001  an adapter's bug must not reach another fleet
        return f"unexpected {type(error).__name__}: {error}; please report"


async def _waited(calls: Iterable[Begun[Any]], timeout_s: float) -> None:
    """Wait until all calls have ended or the time is over. If cancelled, cancel the calls."""
    open_calls = [call for call in calls if not isinstance(call, CompletedCall) and not call.done()]
    if not open_calls:
        return
    try:
        await asyncio.wait(open_calls, timeout=timeout_s)
    except asyncio.CancelledError:
        for call in open_calls:
            call.cancel()
        raise


def _checked_ids(_: str, ids: frozenset[str]) -> frozenset[str]:
    return frozenset(ids)


def _checked_readings(readings: FleetReadings) -> FleetReadings:
    """Return the readings as tuples and float64 arrays with one reading per VM; raises if they cannot be converted."""
    values = np.asarray(readings.values, np.float64)
    observed_at_s = np.asarray(readings.observed_at_s, np.float64)
    received_at_s, utilisation = _numbers(readings.received_at_s), _numbers(readings.utilisation)
    arrays = (values, observed_at_s, received_at_s, utilisation)
    shape = (len(readings.vm_ids),)
    if any(array is not None and array.shape != shape for array in arrays):
        return FleetReadings.none("the source returned arrays of different lengths; please report")
    given = (readings.values, readings.observed_at_s, readings.received_at_s, readings.utilisation)
    as_they_are = all(map(is_, arrays, given))
    if not (as_they_are and type(readings.vm_ids) is tuple and type(readings.error) is str):
        readings = FleetReadings(
            tuple(readings.vm_ids), values, observed_at_s, str(readings.error), received_at_s, utilisation
        )
    return newest_of_each(readings)


def _numbers(given: Any) -> Any:
    """Return the values as a float64 array, the same object if they already are one; None stays None."""
    return None if given is None else np.asarray(given, np.float64)


def newest_of_each(readings: FleetReadings) -> FleetReadings:
    """Return the readings with at most one per VM, because a VM that is delivered twice must not count twice.

    Of several readings of a VM, finite values win over others, then the latest observed wins, then the first delivered.
    """
    ids = readings.vm_ids
    if len(set(ids)) == len(ids):
        return readings
    merits = list(zip(np.isfinite(readings.values).tolist(), readings.observed_at_s.tolist(), strict=True))
    newest: dict[str, int] = {}
    for at, vm_id in enumerate(ids):
        kept = newest.setdefault(vm_id, at)
        if merits[at] > merits[kept]:
            newest[vm_id] = at
    chosen = np.array(sorted(newest.values()), np.int64)

    def of(array: NDArray[np.float64]) -> NDArray[np.float64]:
        return array[chosen]

    return FleetReadings(
        tuple(ids[at] for at in chosen),
        of(readings.values),
        of(readings.observed_at_s),
        readings.error,
        None if readings.received_at_s is None else of(readings.received_at_s),
        None if readings.utilisation is None else of(readings.utilisation),
    )
