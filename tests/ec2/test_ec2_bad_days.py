"""Days on which EC2, the network or the listing process misbehave: what is reported, and what is not claimed."""

import asyncio
import os
import re
import signal

import pytest
import structlog

from autoscaler.errors import ProviderError
from autoscaler.ports import OutcomeKind, ProvisionSpec
from autoscaler.providers.ec2.listing import FIRST_PAGE

pytestmark = pytest.mark.asyncio(loop_scope="module")

HTML = "<html><body><b>Service Unavailable</b></body></html>"


async def test_an_endpoint_that_is_down(open_provider, free_port):
    provider = await open_provider(f"http://127.0.0.1:{free_port}")
    with pytest.raises(ProviderError, match="Nothing was sent"):
        await provider.start(["i-00000001"])
    with pytest.raises(ProviderError, match="Nothing was sent"):
        await provider.provision(ProvisionSpec("web", "t"), 1, "t")
    listing = await provider.list_vms()
    assert (listing.vms, listing.complete) == ((), False)
    assert "cannot reach" in listing.error
    assert "(connection refused). Nothing was sent" in listing.error
    assert await provider.checked(["i-00000001"]) == frozenset()


async def test_a_name_that_does_not_resolve_is_told_from_a_host_that_refuses(open_provider):
    provider = await open_provider("http://no-such-host.invalid")
    listing = await provider.list_vms()
    assert re.search(r"\((.*(name|resol).*)\)\. Nothing was sent", listing.error)


@pytest.mark.parametrize("status", [200, 404, 502])
async def test_a_page_of_html_is_not_an_empty_listing(ec2, provider, status):
    ec2.script["DescribeInstances"] = [(status, HTML)]
    listing = await provider.list_vms()
    assert (listing.vms, listing.complete) == ((), False)
    assert "DescribeInstances" in listing.error


async def test_answers_that_are_cut_are_told_in_the_same_words_each_time(ec2, provider):
    cut = [
        f"<DescribeInstancesResponse><requestId>{n}</requestId><reservationSet><item>{n * 'x'}"
        for n in (1, 9)
    ]
    ec2.script["DescribeInstances"] = [(200, body) for body in cut]
    first, second = await provider.list_vms(), await provider.list_vms()
    assert first.error == second.error
    assert "the answer to DescribeInstances cannot be read: Unable to parse response" in first.error


@pytest.mark.parametrize("status", [200, 404, 502])
async def test_html_for_a_change_leaves_its_outcome_unknown(ec2, provider, status):
    for operation in ("StartInstances", "CreateTags", "RunInstances"):
        ec2.script[operation] = [(status, HTML)]
    started = await provider.start(["i-00000001"])
    tagged = await provider.tag(["i-00000001"], {"a": "b"})
    made = await provider.provision(ProvisionSpec("web", "t"), 1, "t")
    assert {each.kind for each in started + tagged + made} == {OutcomeKind.UNKNOWN}
    assert all(len(each.message) <= 400 for each in started)


async def test_a_connection_dropped_after_the_request_is_an_unknown_outcome(ec2, provider, say):
    ec2.script["StartInstances"] = [say.DROP]
    (outcome,) = await provider.start(["i-00000001"])
    assert outcome.kind is OutcomeKind.UNKNOWN
    assert len(ec2.requests["StartInstances"]) == 1


async def test_a_reset_connection_is_an_unknown_outcome(open_provider):
    async def reset(reader, writer):
        await reader.readline()
        writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: RST
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        provider = await open_provider(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        (outcome,) = await provider.start(["i-00000001"])
    assert outcome.kind is OutcomeKind.UNKNOWN


async def test_silence_is_bounded_and_unknown(ec2, open_provider, say):
    provider = await open_provider(ec2.url, call_deadline_s=0.2)
    ec2.script["StopInstances"] = [say.HANG]
    ec2.script["DescribeInstances"] = [say.HANG]
    (outcome,) = await provider.stop(["i-00000001"])
    assert (outcome.kind, outcome.code) == (OutcomeKind.UNKNOWN, "NoAnswer")
    listing = await provider.list_vms()
    assert not listing.complete
    assert "no answer within 0.2 s" in listing.error


async def test_a_silent_connection_is_bounded_by_its_read_timeout(ec2, open_provider, say):
    provider = await open_provider(ec2.url, read_timeout_s=0.2)
    ec2.script["TerminateInstances"] = [say.HANG]
    (outcome,) = await provider.terminate(["i-00000001"])
    assert (outcome.kind, outcome.code) == (OutcomeKind.UNKNOWN, "ReadTimeoutError")


async def test_expired_credentials_call_for_a_person(ec2, provider, say):
    words = "The provided token has expired."
    for operation in ("StartInstances", "RunInstances", "DescribeInstances"):
        ec2.script[operation] = [say.error(400, "RequestExpired", words)]
    (outcome,) = await provider.start(["i-00000001"])
    assert (outcome.kind, outcome.code) == (OutcomeKind.DENIED, "RequestExpired")
    (outcome,) = await provider.provision(ProvisionSpec("web", "t"), 4, "t")
    assert (outcome.vm_id, outcome.kind) == ("", OutcomeKind.DENIED)
    listing = await provider.list_vms()
    assert words in listing.error


async def test_a_failing_page_in_the_middle_keeps_what_came(ec2, provider, say):
    first, second = range(FIRST_PAGE), range(FIRST_PAGE, FIRST_PAGE + 50)
    ec2.script["DescribeInstances"] = [
        say.page(first, "two"),
        say.page(second, "three"),
        say.error(403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
    ]
    listing = await provider.list_vms()
    assert len(listing.vms) == FIRST_PAGE + 50
    assert not listing.complete
    assert listing.error.endswith("(250 VMs came)")
    assert [each.get("NextToken") for each in ec2.requests["DescribeInstances"]] == [None, "two", "three"]


async def test_one_bad_record_is_named_and_hides_no_other(ec2, provider, say):
    status, body = say.page([1, 2])
    ec2.script["DescribeInstances"] = [(status, body.replace("stopped", "levitating", 1))]
    listing = await provider.list_vms()
    assert [each.id for each in listing.vms] == [say.vm_id(2)]
    assert not listing.complete
    assert say.vm_id(1) in listing.error


async def test_a_bad_record_on_an_early_page_costs_no_later_page(ec2, provider, say):
    status, body = say.page([1, 2], "a")
    ec2.script["DescribeInstances"] = [
        (status, body.replace("stopped", "levitating", 1)),
        say.page([3], "b"),
        say.page([4]),
    ]
    listing = await provider.list_vms()
    assert [each.id for each in listing.vms] == [say.vm_id(2), say.vm_id(3), say.vm_id(4)]
    assert not listing.complete
    assert say.vm_id(1) in listing.error


async def test_ctrl_c_is_not_for_the_listing_process(ec2, provider, say):
    def interrupt(parameters):
        os.kill(provider.listing_pid, signal.SIGINT)
        return say.page([3])

    ec2.script["DescribeInstances"] = [say.page([1], "a"), say.page([2], "b"), interrupt]
    with structlog.testing.capture_logs() as log:
        listing = await provider.list_vms()
    assert listing.complete
    assert len(listing.vms) == 3
    assert log == []


async def test_a_vm_on_two_pages_counts_once(ec2, provider, say):
    ec2.script["DescribeInstances"] = [say.page([1, 2], "next"), say.page([2, 3])]
    listing = await provider.list_vms()
    assert listing.complete
    assert [each.id for each in listing.vms] == [say.vm_id(1), say.vm_id(2), say.vm_id(3)]


async def test_a_killed_listing_process_is_replaced_once_and_named(ec2, provider, say):
    def kill_then_answer(parameters):
        if not killed:
            killed.append(provider.listing_pid)
            os.kill(provider.listing_pid, signal.SIGKILL)
        return say.page([3])

    killed = []
    ec2.script["DescribeInstances"] = [say.page([1], "a"), say.page([2], "b"), kill_then_answer]
    with structlog.testing.capture_logs() as log:
        listing = await provider.list_vms()
    assert listing.complete
    assert [each.id for each in listing.vms] == [say.vm_id(1), say.vm_id(2), say.vm_id(3)]
    assert provider.listing_pid not in (None, killed[0])
    assert [each["event"] for each in log] == ["listing_process_died"]


async def test_a_listing_process_that_keeps_dying_ends_the_listing(ec2, provider, say):
    def kill(parameters):
        os.kill(provider.listing_pid, signal.SIGKILL)
        return say.page([2])

    ec2.script["DescribeInstances"] = [say.page([1], "a"), kill]
    listing = await provider.list_vms()
    assert [each.id for each in listing.vms] == [say.vm_id(1)]
    assert not listing.complete
    assert "died twice" in listing.error
    ec2.script["DescribeInstances"].append(say.page([1]))
    assert (await provider.list_vms()).complete


async def test_a_listing_has_its_own_deadline(ec2, open_provider, say):
    provider = await open_provider(ec2.url, call_deadline_s=30, listing_deadline_s=0.3)
    ec2.script["DescribeInstances"] = [say.HANG]
    listing = await provider.list_vms()
    assert not listing.complete
    assert listing.error.startswith("the listing did not end within 0.3 s")


async def test_a_listing_given_up_half_way_does_not_disturb_the_next(ec2, provider, say):
    ec2.script["DescribeInstances"] = [say.page([1], "a"), say.page([2], "b"), say.HANG]
    listing = asyncio.create_task(provider.list_vms())
    await ec2.hanging.wait()
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing
    ec2.script["DescribeInstances"] = [say.page([4], "c"), say.page([5])]
    ec2.requests.clear()
    ec2.release()
    fresh = await provider.list_vms()
    assert fresh.complete
    assert [each.id for each in fresh.vms] == [say.vm_id(4), say.vm_id(5)]


async def test_after_a_big_listing_all_pages_go_to_the_listing_process(ec2, open_provider, say):
    provider = await open_provider(ec2.url)
    big = [say.page(range(FIRST_PAGE), "a"), say.page(range(FIRST_PAGE, FIRST_PAGE + 1))]
    ec2.script["DescribeInstances"] = [*big, say.page(range(3)), say.page(range(3))]
    assert [len((await provider.list_vms()).vms) for _ in range(3)] == [FIRST_PAGE + 1, 3, 3]
    sizes = [each["MaxResults"] for each in ec2.requests["DescribeInstances"]]
    assert sizes == [str(FIRST_PAGE), "1000", "1000", str(FIRST_PAGE)]


async def test_two_listings_at_once_wait_for_each_other(ec2, provider, say):
    ec2.script["DescribeInstances"] = [say.page([1], "a"), say.page([2]), say.page([1], "a"), say.page([2])]
    one, two = await asyncio.gather(provider.list_vms(), provider.list_vms())
    assert one.vms == two.vms
    assert one.complete
    assert two.complete


async def test_close_ends_the_listing_process(ec2, open_provider, say):
    provider = await open_provider(ec2.url)
    ec2.script["DescribeInstances"] = [say.page([1], "a"), say.page([2])]
    await provider.list_vms()
    pid = provider.listing_pid
    await provider.close()
    assert provider.listing_pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
