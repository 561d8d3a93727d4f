"""What is decided while a fleet is held is not carried out, so it uses up no rate limit and starts no cooldown."""

from autoscaler.ports import Outcome, OutcomeKind
from autoscaler.providers.memory import MemoryProvider
from tests.daemon.builders import Bench, policy, steady, virtual

STARTS = 3


class DeniedOnce(MemoryProvider):
    """Denies the first start, which holds the fleet for a minute."""

    denied = False

    async def start(self, vm_ids):
        if not self.denied:
            self.denied = True
            return tuple(
                Outcome(vm_id, OutcomeKind.DENIED, "UnauthorizedOperation", "no") for vm_id in vm_ids
            )
        return await super().start(vm_ids)


async def started(**guards):
    """When a fleet that was denied its first start starts how many VMs."""
    bench = Bench(vms=12, running=2, zones="a")
    bench.add(policy(guards=guards), steady((0, 1000)), provider=DeniedOnce(bench.world, bench.clock))
    await bench.run(110)
    return [(round(at_s), vms) for at_s, _, vms, _ in bench.calls("StartInstances")]


@virtual
async def test_the_rate_limit_is_as_full_after_a_hold_as_if_nothing_had_been_decided():
    found = await started(rate_out={"vms": STARTS, "per": "1m"})
    assert found[0] == (70, STARTS)


@virtual
async def test_a_cooldown_begins_with_an_order_that_is_made():
    # The first order, which was denied, is 60 s ago; those of the hold were never made.
    found = await started(cooldown_out="40s", rate_out={"vms": STARTS, "per": "1s"})
    assert found == [(70, STARTS), (110, STARTS)]
