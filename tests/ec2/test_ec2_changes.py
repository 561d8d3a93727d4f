"""What a change is on the wire, and what each answer becomes."""

import asyncio

import pytest

from autoscaler.errors import InvariantError, ProviderError
from autoscaler.ports import BATCH_REFUSED, ROOM_FOR_FEWER, OutcomeKind, ProvisionSpec, VmState
from autoscaler.providers.ec2.classify import NOT_IN_REPLY
from autoscaler.providers.ec2.operations import CHANGES, READS, Operation
from autoscaler.providers.ec2.provider import CHECKED_BATCH

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHANGE_ERRORS = [
    (500, "InsufficientInstanceCapacity", OutcomeKind.NO_CAPACITY),
    (400, "VcpuLimitExceeded", OutcomeKind.NO_CAPACITY),
    (503, "RequestLimitExceeded", OutcomeKind.THROTTLED),
    (503, "Unavailable", OutcomeKind.UNKNOWN),
    (500, "InternalError", OutcomeKind.UNKNOWN),
    (400, "IncorrectInstanceState", OutcomeKind.REFUSED),
    (400, "SomethingNewIn2031", OutcomeKind.REFUSED),
    (500, "SomethingNewIn2031", OutcomeKind.UNKNOWN),
    (403, "UnauthorizedOperation", OutcomeKind.DENIED),
    (400, "ExpiredToken", OutcomeKind.DENIED),
]


@pytest.mark.parametrize(("status", "code", "kind"), CHANGE_ERRORS)
async def test_a_failed_start_is_one_request_and_a_typed_outcome(ec2, provider, say, status, code, kind):
    ec2.script["StartInstances"] = [say.error(status, code, "EC2's words")]
    outcomes = await provider.start(["i-00000001", "i-00000002"])
    assert [each.vm_id for each in outcomes] == ["i-00000001", "i-00000002"]
    assert {(each.kind, each.code, each.message) for each in outcomes} == {(kind, code, "EC2's words")}
    assert len(ec2.requests["StartInstances"]) == 1


async def test_no_variable_brings_the_retries_of_changes_back(ec2, open_provider, say, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    monkeypatch.setenv("AWS_RETRY_MODE", "legacy")
    provider = await open_provider(ec2.url)
    ec2.script["RunInstances"] = [say.error(500, "InsufficientInstanceCapacity")]
    await provider.provision(ProvisionSpec("web", "web-template"), 3, "token")
    ec2.script["StopInstances"] = [say.error(503, "RequestLimitExceeded")]
    await provider.stop(["i-00000001"])
    assert len(ec2.requests["RunInstances"]) == len(ec2.requests["StopInstances"]) == 1


async def test_an_endpoint_on_loopback_is_reached_past_a_proxy(
    ec2, open_provider, say, monkeypatch, free_port
):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    provider = await open_provider(ec2.url)
    ec2.script["StopInstances"] = [say.error(400, "IncorrectInstanceState")]
    (outcome,) = await provider.stop(["i-00000001"])
    assert outcome.code == "IncorrectInstanceState"


async def test_reads_are_retried(ec2, provider, say):
    ec2.script["DescribeInstances"] = [say.error(503, "RequestLimitExceeded"), say.page([1])]
    listing = await provider.list_vms()
    assert listing.complete
    assert len(ec2.requests["DescribeInstances"]) == 2


async def test_a_start_tells_the_state_before(ec2, provider, say):
    ids = [say.vm_id(1), say.vm_id(2)]
    ec2.script["StartInstances"] = [say.changed("StartInstances", "instancesSet", ids, previous="running")]
    outcomes = await provider.start(ids)
    assert [each.previous_state for each in outcomes] == [VmState.RUNNING, VmState.RUNNING]
    assert {each.kind for each in outcomes} == {OutcomeKind.ACCEPTED}


async def test_order_and_repeats_follow_the_request(ec2, provider, say):
    one, two = say.vm_id(1), say.vm_id(2)
    ec2.script["StopInstances"] = [say.changed("StopInstances", "instancesSet", [two, one])]
    outcomes = await provider.stop([one, two, one])
    assert [each.vm_id for each in outcomes] == [one, two, one]
    sent = ec2.parameters("StopInstances")
    assert [value for key, value in sent.items() if key.startswith("InstanceId")] == [one, two]


async def test_a_vm_that_the_reply_forgets_is_unknown(ec2, provider, say):
    ids = [say.vm_id(1), say.vm_id(2)]
    ec2.script["StartInstances"] = [say.changed("StartInstances", "instancesSet", ids[:1])]
    first, second = await provider.start(ids)
    assert first.kind is OutcomeKind.ACCEPTED
    assert (second.kind, second.code) == (OutcomeKind.UNKNOWN, NOT_IN_REPLY)


async def test_a_refusal_blames_the_vms_it_names(ec2, provider, say):
    good, bad = say.vm_id(1), say.vm_id(2)
    ec2.script["StartInstances"] = [
        say.error(400, "InvalidInstanceID.NotFound", f"The instance ID '{bad}' does not exist")
    ]
    first, second = await provider.start([good, bad])
    assert (second.kind, second.code) == (OutcomeKind.REFUSED, "InvalidInstanceID.NotFound")
    assert (first.kind, first.code) == (OutcomeKind.REFUSED, BATCH_REFUSED)
    assert bad in first.message


async def test_nothing_asked_is_nothing_sent(ec2, provider):
    assert await provider.start([]) == await provider.stop([]) == await provider.terminate([]) == ()
    assert await provider.tag([], {"a": "b"}) == ()
    assert await provider.checked([]) == frozenset()
    assert not ec2.requests


async def test_a_provision_on_the_wire(ec2, provider, say):
    new = "".join(f"<item><instanceId>{say.vm_id(each)}</instanceId></item>" for each in (7, 8))
    ec2.script["RunInstances"] = [say.reply("RunInstances", f"<instancesSet>{new}</instancesSet>")]
    spec = ProvisionSpec(
        "web", "lt-0123456789abcdef0", "3", vm_type="m7i.xlarge", subnet="subnet-1", tags={"team": "shop"}
    )
    outcomes = await provider.provision(spec, 2, "once-only")
    assert [each.vm_id for each in outcomes] == [say.vm_id(7), say.vm_id(8)]
    sent = ec2.parameters("RunInstances")
    assert sent["LaunchTemplate.LaunchTemplateId"] == "lt-0123456789abcdef0"
    assert "LaunchTemplate.LaunchTemplateName" not in sent
    assert sent["LaunchTemplate.Version"] == "3"
    assert (sent["MinCount"], sent["MaxCount"], sent["ClientToken"]) == ("1", "2", "once-only")
    assert (sent["InstanceType"], sent["SubnetId"]) == ("m7i.xlarge", "subnet-1")
    tags = {
        sent[f"TagSpecification.1.Tag.{at}.Key"]: sent[f"TagSpecification.1.Tag.{at}.Value"]
        for at in (1, 2, 3)
    }
    assert sent["TagSpecification.1.ResourceType"] == "instance"
    assert tags == {"Name": "web", "team": "shop", "autoscaler:fleet": "web"}


async def test_a_provision_by_template_name_leaves_the_rest_to_the_template(ec2, provider, say):
    ec2.script["RunInstances"] = [say.error(400, "InvalidLaunchTemplateName.NotFoundException")]
    (outcome,) = await provider.provision(ProvisionSpec("web", "lt-shop"), 2, "t")
    assert (outcome.vm_id, outcome.kind) == ("", OutcomeKind.REFUSED)
    sent = ec2.parameters("RunInstances")
    assert sent["LaunchTemplate.LaunchTemplateName"] == "lt-shop"
    assert not {"InstanceType", "SubnetId"} & sent.keys()


async def test_a_fleet_cannot_be_overridden_by_tags(ec2, provider, say):
    ec2.script["RunInstances"] = [say.error(400, "InvalidParameterValue")]
    await provider.provision(ProvisionSpec("web", "t", tags={"autoscaler:fleet": "other"}), 1, "t")
    assert "other" not in ec2.parameters("RunInstances").values()


async def test_a_short_reply_to_a_provision_means_that_there_was_room_for_fewer(ec2, provider, say):
    one = f"<instancesSet><item><instanceId>{say.vm_id(1)}</instanceId></item></instancesSet>"
    ec2.script["RunInstances"] = [say.reply("RunInstances", one)]
    first, rest = await provider.provision(ProvisionSpec("web", "t"), 2, "t")
    assert first.kind is OutcomeKind.ACCEPTED
    assert (rest.vm_id, rest.kind, rest.code) == ("", OutcomeKind.NO_CAPACITY, ROOM_FOR_FEWER)
    assert rest.message == "1 of 2 VMs were made, because there is no room for more"


async def test_a_reply_to_a_provision_without_any_vm_is_unknown(ec2, provider, say):
    ec2.script["RunInstances"] = [say.reply("RunInstances", "<instancesSet></instancesSet>")]
    (outcome,) = await provider.provision(ProvisionSpec("web", "t"), 2, "t")
    assert (outcome.vm_id, outcome.kind) == ("", OutcomeKind.UNKNOWN)


@pytest.mark.parametrize(("count", "token"), [(0, "t"), (1, "")])
async def test_a_provision_without_count_or_token_is_a_bug(ec2, provider, count, token):
    with pytest.raises(InvariantError):
        await provider.provision(ProvisionSpec("web", "t"), count, token)
    assert not ec2.requests


async def test_each_client_makes_its_own_operations_only(ec2, provider):
    for operation in CHANGES:
        with pytest.raises(InvariantError):
            await provider._reads.call(operation)
    for operation in READS:
        with pytest.raises(InvariantError):
            await provider._changes.call(operation)
    assert frozenset(Operation) == READS | CHANGES
    assert not ec2.requests


async def test_checked_asks_in_batches_and_needs_both_checks(ec2, provider, say):
    def statuses(parameters):
        ids = [value for key, value in parameters.items() if key.startswith("InstanceId")]
        items = "".join(
            f"<item><instanceId>{each}</instanceId><systemStatus><status>ok</status></systemStatus>"
            f"<instanceStatus><status>{'initializing' if each == say.vm_id(3) else 'ok'}</status></instanceStatus></item>"
            for each in ids
        )
        return say.reply("DescribeInstanceStatus", f"<instanceStatusSet>{items}</instanceStatusSet>")

    ec2.script["DescribeInstanceStatus"] = [statuses]
    ids = [say.vm_id(each) for each in range(250)]
    assert await provider.checked(ids) == set(ids) - {say.vm_id(3)}
    assert len(ec2.requests["DescribeInstanceStatus"]) == 3


async def test_checked_asks_all_batches_at_the_same_time(provider, say, monkeypatch):
    all_here = asyncio.Barrier(3)

    async def status(ids):
        await asyncio.wait_for(all_here.wait(), 5.0)
        well = {"Status": "ok"}
        return {
            "InstanceStatuses": [{"InstanceId": i, "InstanceStatus": well, "SystemStatus": well} for i in ids]
        }

    monkeypatch.setattr(provider, "_status", status)
    ids = [say.vm_id(number) for number in range(2 * CHECKED_BATCH + 1)]
    assert await provider.checked(ids) == set(ids)


async def test_checked_goes_on_without_a_vm_that_is_gone(ec2, provider, say):
    ok = (
        f"<instanceStatusSet><item><instanceId>{say.vm_id(1)}</instanceId><systemStatus><status>ok</status>"
        "</systemStatus><instanceStatus><status>ok</status></instanceStatus></item></instanceStatusSet>"
    )
    ec2.script["DescribeInstanceStatus"] = [
        say.error(400, "InvalidInstanceID.NotFound", f"The instance ID '{say.vm_id(2)}' does not exist"),
        say.reply("DescribeInstanceStatus", ok),
    ]
    assert await provider.checked([say.vm_id(1), say.vm_id(2)]) == {say.vm_id(1)}


async def test_checked_is_empty_on_failure(ec2, provider, say):
    ec2.script["DescribeInstanceStatus"] = [say.error(403, "UnauthorizedOperation")]
    assert await provider.checked([say.vm_id(1)]) == frozenset()


async def test_provider_errors_are_for_people(open_provider, free_port):
    provider = await open_provider(f"http://127.0.0.1:{free_port}")
    with pytest.raises(
        ProviderError, match=r"StartInstances: cannot reach http://127.*Nothing was sent; check"
    ):
        await provider.start(["i-00000001"])
