"""How long it takes from the first sample that shows a burst to the call that starts VMs."""

from __future__ import annotations

import pytest

from autoscaler.clock import run_virtual
from tests.daemon.builders import ORIGIN_S, Bench, Demand, policy

TICK_S, ANSWER_S = 10.0, 0.2


class Monitoring(Demand):
    """Answers a while after it was asked with what is visible then, as a scrape or a query does."""

    async def read(self, vms):
        await self.clock.sleep_until(self.clock.monotonic() + ANSWER_S)
        return await super().read(vms)


@pytest.mark.parametrize("signal", ["throughput", "total"])
@pytest.mark.parametrize("visible_s", [100.0 + ANSWER_S, 100.3, 104.9, 109.9, 110.1, 110.0 + ANSWER_S + 0.01])
def test_a_start_is_on_the_wire_within_a_tick_and_half_a_second(visible_s, signal):
    async def life():
        bench = Bench(vms=9, running=1, tick_s=TICK_S)
        burst = Monitoring(bench.clock, lambda s: 550.0 if s >= visible_s else 50.0, total=signal == "total")
        bench.add(policy(signal={"kind": signal, "source": "trace", "trace": {}}), burst)
        await bench.run(150.0)
        return bench.calls("StartInstances")

    calls = run_virtual(life)
    after = [at_s - visible_s for at_s, *_ in calls if at_s >= visible_s]
    assert sum(vms for at_s, _, vms, _ in calls if at_s >= visible_s) == 5
    assert min(after) <= TICK_S + 0.5
    assert max(after) <= TICK_S + 0.5, f"at {ORIGIN_S}: {calls}"
