"""No request is lost when a VM leaves: a VM is drained and switched off under real traffic through a real HAProxy."""

import asyncio

from autoscaler.balancers.haproxy import HaproxyBalancer
from autoscaler.clock import SystemClock
from autoscaler.daemon.acts.drain import Drains
from autoscaler.daemon.vms.inventory import FleetInventory, Phase
from autoscaler.ports import ActionIntent, Listing, Verb
from tests.balancers.haproxy_process import BACKEND, Haproxy, Vms, wait_for
from tests.daemon.builders import policy, reconcile
from tests.sources.doubles import vm


async def test_a_drained_vm_is_switched_off_under_load_and_no_request_fails(tmp_path):
    clock = SystemClock()
    async with Vms(2) as vms, Haproxy(tmp_path, vms) as haproxy:
        inventory = FleetInventory("web")
        rows = tuple(vm(f"i-{number}", address) for number, address in enumerate(vms.addresses))
        now_s = clock.now()
        reconcile(inventory, Listing(rows, True, now_s, now_s), rows, now_s)
        inventory.mark_ready([row.id for row in rows], now_s)
        front = HaproxyBalancer([haproxy.place], BACKEND, "address", clock, timeout_s=5.0)
        drains = Drains(front, policy())
        said = []
        switched_off = asyncio.Event()

        async def client():
            # The load continues until well after the VM is gone.
            left = 30
            while left:
                said.append(await haproxy.request())
                left -= switched_off.is_set()

        # Each VM holds one request from before the cordon.
        vms.free.clear()
        early = [asyncio.create_task(haproxy.request()) for _ in range(2)]
        await wait_for(lambda: len(vms.seen) == 2)

        intent = ActionIntent("web", Verb.DRAIN, ("i-0",), 1, "", "the test")
        drains.sent(inventory, intent, clock.now())
        outcomes = await drains.carry_out(inventory, intent, clock.now(), 5.0)
        assert drains.settle(inventory, intent, outcomes, clock.now()) == []
        assert inventory.vms["i-0"].phase is Phase.DRAINING
        await drains.look(inventory, clock.now(), 5.0)
        await drains.look(inventory, clock.now(), 5.0)
        assert drains.finished(clock.now()) == ([], [], [])

        vms.free.set()
        vms.seen.clear()
        clients = [asyncio.create_task(client()) for _ in range(4)]

        async def idle():
            await drains.look(inventory, clock.now(), 5.0)
            return drains.finished(clock.now())[0]

        await wait_for(idle)
        vms._listening[0].close()
        switched_off.set()
        await asyncio.gather(*clients)
        assert await asyncio.gather(*early) == ["HTTP/1.1 200 OK"] * 2
        assert set(said) == {"HTTP/1.1 200 OK"}
        assert set(vms.seen) == {vms.addresses[1]}
