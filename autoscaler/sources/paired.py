"""A source of work combined with a source of utilisation, for learning the capacity of VMs.

Rules of this file: work is what matters, and waits for the utilisation no longer than `WAIT_S`. Missing utilisation is NaN, errors of its
source are reported, and nothing about it ever fails or delays the readings of work. At most one round of it is in progress.
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
"""How long readings of work wait for those of utilisation that were asked for at the same time."""


class PairedSource:
    """A `MetricSource`.

    Args:
        work: Its readings are these.
        busy: Utilisation of the same VMs.
    """

    def __init__(self, work: MetricSource, busy: MetricSource) -> None:
        self._work = work
        self._busy = busy
        self._round: asyncio.Task[tuple[dict[str, float], str]] | None = None

    async def read(self, vms: Sequence[Vm]) -> FleetReadings:
        """Read both.

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
        """Release both."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait({self._round})
        try:
            await self._work.close()
        finally:
            await self._busy.close()


class PairedHistorySource(PairedSource):
    """The same where the source of work can tell of the past as well.

    Args:
        work: Its readings are these.
        busy: Utilisation of the same VMs.
        past: The source of work, as what tells of the past.
    """

    def __init__(self, work: MetricSource, busy: MetricSource, past: HistorySource) -> None:
        super().__init__(work, busy)
        self._past = past

    async def history(self, start_s: float, end_s: float, step_s: float) -> History:
        """As in the port HistorySource."""
        return await self._past.history(start_s, end_s, step_s)


async def _read(busy: MetricSource, vms: Sequence[Vm]) -> tuple[dict[str, float], str]:
    """What it reads, utilisation by VM; a failure is nothing with words."""
    try:
        found = await busy.read(vms)
        return dict(zip(found.vm_ids, found.values.tolist(), strict=True)), found.error
    except AutoscalerError as error:
        return {}, str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001  what is beside must not cost the readings of work
        return {}, f"unexpected {type(error).__name__}: {error}; please report"
