"""One listing for many callers, whatever one of them does."""

import asyncio

import pytest

from autoscaler.clock import VirtualClock
from autoscaler.errors import ProviderError
from autoscaler.ports import Listing, Outcome, OutcomeKind, ProvisionSpec, Vm
from autoscaler.providers.coalescing import SharedProvider, SharedReader
from autoscaler.providers.readiness import StatusCheckProbe
from tests.daemon.builders import virtual, vm


class Provider:
    """A provider whose listings take `takes_s` and carry their number as the error text; calls are recorded."""

    def __init__(self, clock, takes_s=2.0):
        self.clock, self.takes_s = clock, takes_s
        self.listings, self.ended, self.calls = 0, 0, []

    async def list_vms(self):
        self.listings += 1
        number = self.listings
        try:
            await self.clock.sleep_until(self.clock.monotonic() + self.takes_s)
        finally:
            self.ended += 1
        return Listing((), True, 0.0, 0.0, f"number {number}")

    async def checked(self, vm_ids):
        self.calls.append(("checked", tuple(vm_ids)))
        return frozenset(vm_ids)

    def __getattr__(self, name):
        async def call(*given):
            self.calls.append((name, *given))
            return (Outcome(name, OutcomeKind.ACCEPTED),)

        return call


@virtual
async def test_askers_at_the_same_time_share_one_and_later_ones_get_a_new_one():
    provider = Provider(VirtualClock())
    reader = SharedReader(provider)
    first = await asyncio.gather(*(reader.list_vms() for _ in range(5)))
    assert {listing.error for listing in first} == {"number 1"}
    assert (await reader.list_vms()).error == "number 2"
    assert provider.listings == 2


@virtual
async def test_an_asker_that_gives_up_takes_it_from_nobody():
    provider = Provider(VirtualClock())
    reader = SharedReader(provider)
    patient, hasty = (asyncio.create_task(reader.list_vms()) for _ in range(2))
    await provider.clock.sleep_until(1.0)
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    assert (await patient).error == "number 1"
    assert provider.listings == 1


@virtual
async def test_a_listing_that_never_ends_is_given_up_for_a_new_one():
    provider = Provider(VirtualClock(), takes_s=1e9)
    reader = SharedReader(provider, patience_s=60.0)
    for _ in range(6):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await reader.list_vms()
        await provider.clock.sleep_until(provider.clock.monotonic() + 5.0)
    assert provider.listings == 1
    provider.takes_s = 1.0
    assert (await reader.list_vms()).error == "number 2"
    assert provider.ended == 2


def breaking():
    """A provider, a reader whose listings fail, and the listing that does not."""
    provider = Provider(VirtualClock())
    reader = SharedReader(provider)
    good = reader._list

    async def broken():
        await good()
        raise OSError("broken pipe")

    reader._list = broken
    return provider, reader, good


@virtual
async def test_an_error_reaches_all_askers_and_the_next_ask_begins_anew():
    _, reader, good = breaking()
    found = await asyncio.gather(*(reader.list_vms() for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in found] == ["broken pipe"] * 3
    reader._list = good
    assert (await reader.list_vms()).error == "number 2"


@virtual
async def test_an_error_that_nobody_waits_for_any_more_is_no_complaint_of_the_event_loop():
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    provider, reader, _ = breaking()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await reader.list_vms()
    await provider.clock.sleep_until(5.0)
    reader._under_way = None
    assert complaints == []


@virtual
async def test_changes_go_to_the_provider_and_reads_through_the_reader():
    provider = Provider(VirtualClock())
    reader = SharedReader(provider)
    shared = SharedProvider(provider, reader)
    listed = await asyncio.gather(shared.list_vms(), reader.list_vms())
    assert [listing.error for listing in listed] == ["number 1"] * 2
    spec = ProvisionSpec("web", "lt-1")
    await shared.start(["a"])
    await shared.stop(["b"])
    await shared.provision(spec, 2, "token")
    await shared.terminate(["c"])
    await shared.tag(["d"], {"k": "v"})
    assert await shared.checked(["e"]) == {"e"}
    await shared.close()
    assert provider.calls == [
        ("start", ["a"]),
        ("stop", ["b"]),
        ("provision", spec, 2, "token"),
        ("terminate", ["c"]),
        ("tag", ["d"], {"k": "v"}),
        ("checked", ("e",)),
        ("close",),
    ]


@virtual
async def test_readiness_by_status_checks_asks_for_all_vms_in_one_call():
    provider = Provider(VirtualClock())
    vms: list[Vm] = [vm("a"), vm("b")]
    assert await StatusCheckProbe(provider).ready(vms) == {"a", "b"}
    assert provider.calls == [("checked", ("a", "b"))]


class AtOnce(Provider):
    """A provider that answers at once, and declares so."""

    answers_at_once = True

    async def list_vms(self):
        self.listings += 1
        return Listing((), True, 0.0, 0.0, f"number {self.listings}")


@virtual
async def test_an_answer_at_once_is_shared_by_those_who_ask_at_the_same_moment():
    clock = VirtualClock()
    provider = AtOnce(clock)
    reader = SharedReader(provider)
    assert reader.answers_at_once
    assert [(await reader.list_vms()).error for _ in range(3)] == ["number 1"] * 3
    await clock.sleep_until(1.0)
    assert (await reader.list_vms()).error == "number 2"


@virtual
async def test_after_a_change_the_same_moment_has_a_new_listing():
    provider = AtOnce(VirtualClock())
    reader = SharedReader(provider)
    shared = SharedProvider(provider, reader)
    assert (await shared.list_vms()).error == "number 1"
    for number, change in enumerate(
        (
            lambda: shared.start(["i-1"]),
            lambda: shared.stop(["i-1"]),
            lambda: shared.provision(ProvisionSpec("web", "lt-1"), 1, "token"),
            lambda: shared.terminate(["i-1"]),
            lambda: shared.tag(["i-1"], {"a": "b"}),
        ),
        start=2,
    ):
        await change()
        assert (await shared.list_vms()).error == f"number {number}"


@virtual
async def test_a_failure_at_once_is_everybodys():
    class Failing(AtOnce):
        async def list_vms(self):
            self.listings += 1
            raise ProviderError("no route", code="")

    provider = Failing(VirtualClock())
    reader = SharedReader(provider)
    for _ in range(2):
        with pytest.raises(ProviderError):
            await reader.list_vms()
    assert provider.listings == 1
