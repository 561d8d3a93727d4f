"""Observing: all listings and readings of one tick, concurrently, under one deadline, failures as values.

Rules of this file: whatever a source or a provider does (hang, raise, return nonsense), the result for its
own fleets says so in words, and nobody else's result waits for it longer than the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from autoscaler.daemon.bounded import within
from autoscaler.errors import AutoscalerError
from autoscaler.ports import Clock, FleetReadings, Listing, MetricSource, Provider, ReadinessProbe, Vm

T = TypeVar("T")


def no_readings(why: str) -> FleetReadings:
    """Nothing was read, and why."""
    return FleetReadings((), np.empty(0), np.empty(0), why)


async def list_all(providers: Iterable[Provider], clock: Clock, timeout_s: float) -> dict[int, Listing]:
    """One listing per distinct provider, keyed by `id(provider)`."""
    distinct = {id(provider): provider for provider in providers}

    async def one(provider: Provider) -> Listing:
        asked_s = clock.now()
        got = await _or_words(provider.list_vms, _checked_listing, timeout_s)
        return Listing((), False, asked_s, clock.now(), got) if isinstance(got, str) else got

    listings = await asyncio.gather(*(one(provider) for provider in distinct.values()))
    return dict(zip(distinct, listings, strict=True))


async def read_all(
    sources: Mapping[str, MetricSource], vms: Mapping[str, Sequence[Vm]], timeout_s: float
) -> dict[str, FleetReadings]:
    """The readings of every fleet."""

    async def one(fleet: str, source: MetricSource) -> FleetReadings:
        got = await _or_words(lambda: source.read(vms[fleet]), _checked_readings, timeout_s)
        return no_readings(got) if isinstance(got, str) else got

    readings = await asyncio.gather(*(one(fleet, source) for fleet, source in sources.items()))
    return dict(zip(sources, readings, strict=True))


async def probe_all(
    probes: Mapping[str, ReadinessProbe], vms: Mapping[str, Sequence[Vm]], timeout_s: float
) -> dict[str, frozenset[str]]:
    """Which of the running VMs of each fleet are ready; fleets without such VMs are not asked."""
    asked = {fleet: probes[fleet] for fleet, running in vms.items() if running}

    async def one(fleet: str, probe: ReadinessProbe) -> frozenset[str]:
        got = await _or_words(lambda: probe.ready(vms[fleet]), _checked_ids, timeout_s)
        return frozenset() if isinstance(got, str) else got

    ready = await asyncio.gather(*(one(fleet, probe) for fleet, probe in asked.items()))
    return dict(zip(asked, ready, strict=True))


async def _or_words(call: Callable[[], Awaitable[T]], check: Callable[[T], T], timeout_s: float) -> T | str:
    """What the call returns, once checked; words where it fails or what it returns is no such thing."""
    try:
        return check(await within(call, timeout_s))
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except AutoscalerError as error:
        return str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001  an adapter's bug must not reach another fleet
        return f"unexpected {type(error).__name__}: {error}; please report"


def _checked_listing(listing: Listing) -> Listing:
    if not all(isinstance(vm, Vm) for vm in listing.vms):
        raise TypeError("the listing holds something else than VMs")
    return replace(listing, vms=tuple(listing.vms))


def _checked_ids(ids: frozenset[str]) -> frozenset[str]:
    return frozenset(ids)


def _checked_readings(readings: FleetReadings) -> FleetReadings:
    """The readings as arrays of numbers; raises where they are none."""
    values = np.asarray(readings.values, np.float64)
    observed_at_s = np.asarray(readings.observed_at_s, np.float64)
    if not (len(readings.vm_ids),) == values.shape == observed_at_s.shape:
        return no_readings("the source returned arrays of different lengths; please report")
    return FleetReadings(tuple(readings.vm_ids), values, observed_at_s, str(readings.error))
