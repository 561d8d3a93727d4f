"""The past that a scenario's daemon may read: only what was known at that time."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from autoscaler.simulator.scenarios.side_events import RecallingSource
from autoscaler.traces.trace import Trace, TraceKind

BEGIN_S = datetime(2026, 3, 2, tzinfo=UTC).timestamp()


class Inner:
    closed = False

    async def read(self, vms):
        return vms

    async def close(self):
        self.closed = True


@pytest.mark.parametrize(("kind", "late_s"), [(TraceKind.COUNT, 60.0), (TraceKind.GAUGE, 0.0)])
async def test_a_value_is_known_once_its_interval_is_over_and_until_the_next(kind, late_s):
    stamps = BEGIN_S + 60.0 * np.array([0, 1, 2, 5, 6])
    values = np.array([60.0, 120.0, 180.0, 240.0, 300.0])
    trace = Trace.build(stamps, values, kind=kind, name="some", interval_s=60.0)
    source = RecallingSource(inner := Inner(), trace)
    found = await source.history(BEGIN_S - 60.0, BEGIN_S + 900.0, 20.0)
    known = dict(zip((found.times_s - BEGIN_S - late_s).tolist(), found.demand.tolist(), strict=True))
    rates = trace.rates.tolist()
    minutes = dict(zip((0, 1, 2, 5, 6), rates, strict=True))
    assert known == {60.0 * at + more: rate for at, rate in minutes.items() for more in (0.0, 20.0, 40.0)}
    assert await source.read("some") == "some"
    await source.close()
    assert inner.closed
