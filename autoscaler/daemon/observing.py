"""Observing: all listings and readings of one tick, concurrently, under one deadline, failures as values.

Rules of this file: whatever a source or a provider does (hang, raise, return nonsense), the result for its
own fleets says so in words, and nobody else's result waits for it longer than the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

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
        got = await _or_words(provider.list_vms(), timeout_s)
        return Listing((), False, asked_s, clock.now(), got) if isinstance(got, str) else got

    listings = await asyncio.gather(*(one(provider) for provider in distinct.values()))
    return dict(zip(distinct, listings, strict=True))


async def read_all(
    sources: Mapping[str, MetricSource], vms: Mapping[str, Sequence[Vm]], timeout_s: float
) -> dict[str, FleetReadings]:
    """The readings of every fleet."""

    async def one(fleet: str, source: MetricSource) -> FleetReadings:
        got = await _or_words(source.read(vms[fleet]), timeout_s)
        if isinstance(got, str):
            return no_readings(got)
        if not len(got.vm_ids) == len(got.values) == len(got.observed_at_s):
            return no_readings("the source returned arrays of different lengths; please report")
        return got

    readings = await asyncio.gather(*(one(fleet, source) for fleet, source in sources.items()))
    return dict(zip(sources, readings, strict=True))


async def probe_all(
    probes: Mapping[str, ReadinessProbe], vms: Mapping[str, Sequence[Vm]], timeout_s: float
) -> dict[str, frozenset[str]]:
    """Which of the running VMs of each fleet are ready; fleets without such VMs are not asked."""
    asked = {fleet: probes[fleet] for fleet, running in vms.items() if running}

    async def one(fleet: str, probe: ReadinessProbe) -> frozenset[str]:
        got = await _or_words(probe.ready(vms[fleet]), timeout_s)
        return frozenset() if isinstance(got, str) else got

    ready = await asyncio.gather(*(one(fleet, probe) for fleet, probe in asked.items()))
    return dict(zip(asked, ready, strict=True))


async def _or_words(call: Awaitable[T], timeout_s: float) -> T | str:
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except AutoscalerError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  an adapter's bug must not reach another fleet
        return f"unexpected {type(error).__name__}: {error}; please report"
