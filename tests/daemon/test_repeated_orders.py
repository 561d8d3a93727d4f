"""Orders that fail in the same way at each tick are reported once in a while, not at each tick."""

from autoscaler.daemon.vms.inventory import FleetInventory, Patience
from autoscaler.errors import ProviderError
from autoscaler.ports import Outcome, OutcomeKind, Verb
from tests.daemon.builders import Bench, listing, policy, reconcile, steady, virtual, vm

TOTAL = {"kind": "total"}


class Unreachable:
    """A provider that lists, and to which no change can be sent until some second."""

    def __init__(self, bench, until_s):
        self._bench, self._until_s = bench, until_s

    def __getattr__(self, name):
        return getattr(self._bench.provider, name)

    async def start(self, vm_ids):
        if self._bench.clock.monotonic() < self._until_s:
            raise ProviderError("cannot reach it. Nothing was sent", code="EndpointConnectionError")
        return await self._bench.provider.start(vm_ids)


@virtual
async def test_an_endpoint_that_cannot_be_reached_is_told_once_in_ten_minutes():
    bench = Bench(vms=6, zones="a")
    bench.add(policy(signal=TOTAL), steady((0, 300)), provider=Unreachable(bench, 1500))
    await bench.run(1600)
    assert len(bench.actions()) > 100
    told = [at for at, kind, _ in bench.events() if kind == "start_not_accepted"]
    assert told == [0, 600, 1200]
    assert bench.column("in_service")[-1] >= 3


def test_after_a_success_and_a_clock_that_was_set_back_it_is_told_again():
    inventory = FleetInventory("web", Patience())
    shown = [vm()]
    reconcile(inventory, listing(*shown, at=0), shown, 0)

    def order(at_s, kind):
        inventory.sent(Verb.START, ["i-1"], 1, 7, at_s)
        return inventory.settle(Verb.START, [Outcome("i-1", kind, "RequestLimitExceeded")], at_s, at_s)

    throttled = OutcomeKind.THROTTLED
    assert [bool(order(at_s, throttled)) for at_s in (700, 710)] == [True, False]
    order(720, OutcomeKind.ACCEPTED)
    assert order(730, throttled)
    assert order(400, throttled)
