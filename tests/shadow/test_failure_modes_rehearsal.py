"""A rehearsal is faithful: with the same demand, a fleet in shadow decides, tick by tick, like one that acts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.clock import run_virtual
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.providers.coalescing import SharedReader
from autoscaler.providers.shadow import ShadowProvider
from tests.daemon.builders import Bench, policy

PLAIN = Physics(start=Spread(14), boot=Spread(6), launch=Spread(14), first_boot=Spread(6), stop=Spread(30))
"""Durations as in the policy: a VM is ready 20 s after a start, and stopped 30 s after a stop."""
SAME = ("demand", "desired", "in_service", "starting", "stopping", "stopped", "start", "stop", "provision")


async def lived(levels, *, act):
    bench = Bench(vms=8, running=1, zones="a", physics=PLAIN, limits=None)
    own = policy(
        act=act,
        signal={"kind": "total"},
        guards={"minimum_on_time": "60s", "cooldown_in": "60s", "stabilisation": "30s"},
    )
    reader = SharedReader(bench.provider)
    pretended = ShadowProvider(reader, bench.clock, "web", start_time_s=20.0, stop_time_s=30.0)
    provider = bench.provider if act else pretended
    bench.add(own, lambda s: 100.0 * levels[int(s * len(levels) // 601)], provider=provider)
    await bench.run(600)
    return bench


@given(st.lists(st.integers(0, 9), min_size=2, max_size=12))
@settings(max_examples=12, deadline=None)
def test_in_shadow_each_tick_is_decided_as_if_it_acted_and_nothing_is_called(levels):
    acting = run_virtual(lambda: lived(levels, act=True))
    rehearsed = run_virtual(lambda: lived(levels, act=False))
    for name in SAME:
        assert rehearsed.column(name) == acting.column(name), name
    assert rehearsed.changes() == []
    assert (acting.changes() == []) is (not any(acting.column("start")) and not any(acting.column("stop")))
