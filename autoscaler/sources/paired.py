"""A source of work combined with a source of utilisation, for learning the capacity of VMs.

Rules of this file: the readings of work have priority, and wait for utilisation no longer than `WAIT_S`. Missing utilisation is
NaN, and errors of its source are reported, but it never fails or delays the readings of work further. At most one round of it is
in progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoscaler.errors import AutoscalerError
from autoscaler.ports import FleetReadings, MetricSource, Vm
from autoscaler.ports.sources import History, HistorySource

WAIT_S = 0.2
"""How long readings of work wait for the utilisation that was requested at the same time, in seconds."""


class PairedSource:
    """A `MetricSource` that adds utilisation to the readings of another source.

    Args:
        work: Source of the readings.
        busy: Source of the utilisation of the same VMs.
    """

    def __init__(self, work: MetricSource, busy: MetricSource) -> None:
        self._work = work
        self._busy = busy
        self._round: asyncio.Task[tuple[dict[str, float], str]] | None = None

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read both sources.

        Raises:
            SourceError: The work could not be read.
        """
        if self._round is None:
            self._round = asyncio.create_task(_read(self._busy, tuple(vms)))
        work = await self._work.read(vms)
        if not self._round.done():
            await asyncio.wait({self._round}, timeout=WAIT_S)
        if not self._round.done():
            return work
        ended, self._round = self._round, None
        of, trouble = ended.result()
        utilisation = np.array([of.get(vm_id, np.nan) for vm_id in work.vm_ids], np.float64)
        told = f"utilisation: {trouble}" if trouble else ""
        error = "; ".join(text for text in (work.error, told) if text)
        return replace(work, utilisation=utilisation, error=error)

    async def close(self) -> None:
        """Close both sources."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait({self._round})
        try:
            await self._work.close()
        finally:
            await self._busy.close()


class PairedHistorySource(PairedSource):
    """A `PairedSource` whose source of work can also read the past.

    Args:
        work: Source of the readings.
        busy: Source of the utilisation of the same VMs.
        past: The source of work as a HistorySource.
    """

    def __init__(self, work: MetricSource, busy: MetricSource, past: HistorySource) -> None:
        super().__init__(work, busy)
        self._past = past

    async def history(self, start_s: float, end_s: float, step_s: float) -> History:
        """See `HistorySource.history`."""
        return await self._past.history(start_s, end_s, step_s)


async def _read(busy: MetricSource, vms: Sequence[Vm]) -> tuple[dict[str, float], str]:
    """Read the utilisation by VM, and an error text. A failure gives no values and its text."""
    try:
        found = await busy.read(vms)
        return dict(zip(found.vm_ids, found.values.tolist(), strict=True)), found.error
    except AutoscalerError as error:
        return {}, str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001  a failure here must not cost the readings of work
        return {}, f"unexpected {type(error).__name__}: {error}; please report"
