"""The time from the first sample that shows a burst to the call that starts VMs."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.clock import run_virtual
from autoscaler.ports import FleetReadings
from tests.daemon.builders import ORIGIN_S, Bench, Demand, policy

TICK_S, ANSWER_S = 10.0, 0.2


class Monitoring(Demand):
    """A source that answers with a delay, with what is visible then, like a scrape or a query."""

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


BURSTS, APART_S, START_S = 16, 660.0, 19.0


class Late:
    """A fleet's demand with a delay that is drawn anew for each interval of the source."""

    def __init__(self, clock, demand, every_s, delay_s):
        self.clock, self.demand, self.every_s, self.delay_s = clock, demand, every_s, delay_s

    async def read(self, vms):
        del vms
        now_s = self.clock.now()
        number = int((now_s - ORIGIN_S) // self.every_s)
        # The newest of the values that have been published by now.
        while number >= 0 and self.published_s(number) > now_s:
            number -= 1
        if number < 0:
            return FleetReadings((), np.empty(0), np.empty(0), "nothing yet")
        at_s = ORIGIN_S + number * self.every_s
        return FleetReadings(("",), np.array([self.demand(at_s - ORIGIN_S)]), np.array([at_s]))

    def published_s(self, number):
        """When the value of an interval may be read first."""
        drawn = np.random.default_rng((3, number)).uniform(*self.delay_s)
        return ORIGIN_S + number * self.every_s + float(drawn)

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("every_s", "delay_s"),
    [
        pytest.param(5.0, (0.0, 1.0), id="a scrape"),
        pytest.param(15.0, (5.0, 20.0), id="Prometheus"),
        pytest.param(60.0, (60.0, 150.0), id="CloudWatch"),
    ],
)
def test_capacity_comes_as_much_later_as_the_source_is_late(every_s, delay_s):
    began_s = [
        300.0 + APART_S * n + float(np.random.default_rng((7, n)).uniform(0, 60)) for n in range(BURSTS)
    ]

    def demand(second):
        return 550.0 if any(begin <= second < begin + 240.0 for begin in began_s) else 50.0

    async def life():
        bench = Bench(vms=9, running=1, tick_s=TICK_S, limits=None)
        own = policy(signal={"kind": "total", "source": "trace", "trace": {}, "max_age": "300s"})
        bench.add(own, Late(bench.clock, demand, every_s, delay_s))
        await bench.run(300.0 + APART_S * BURSTS)
        serving = np.array(bench.column("in_service"))
        at_s = TICK_S * np.arange(len(serving))
        return [float(at_s[(at_s >= begin) & (serving >= 6)][0] - begin) for begin in began_s]

    lead_s = np.array(run_virtual(life))
    # An interval until there is a value, the time until it may be read, a tick until it is, and the two of a start.
    late_s, start_s = np.array(delay_s), 2.0 * TICK_S
    assert np.quantile(lead_s, 0.5) <= every_s / 2.0 + late_s.mean() + 2.0 * TICK_S + start_s
    assert np.quantile(lead_s, 0.95) <= every_s + late_s[1] + TICK_S + start_s
    assert lead_s.min() >= START_S + late_s[0]
