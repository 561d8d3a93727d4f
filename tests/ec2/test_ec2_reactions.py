"""Every error code that the start path may meet, one by one, at the embedded endpoint: its meaning, with one request each."""

import asyncio

import pytest
import pytest_asyncio

from autoscaler.clock import SystemClock
from autoscaler.cloud.endpoint_process import EndpointProcess
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.daemon.vms.quarantine import FailureCause, verdict_of
from autoscaler.ports import Outcome, OutcomeKind
from autoscaler.providers.ec2.classify import CODES, REACTIONS, Reaction, may_be_read_again, reaction_to
from autoscaler.providers.ec2.client import READ_ATTEMPTS
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.failing import Failure

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
PUBLISHED = """
InsufficientInstanceCapacity=elsewhere InsufficientHostCapacity=own_room ReservationCapacityExceeded=own_room
UnfulfillableCapacity=elsewhere MaxFleetCountExceeded=elsewhere InsufficientFreeAddressesInSubnet=elsewhere
VcpuLimitExceeded=other_family InstanceLimitExceeded=other_family RequestLimitExceeded=slow_down
Throttling=slow_down Unavailable=list_first InternalError=list_first ServiceUnavailable=list_first
IncorrectInstanceState=look_again InvalidInstanceID.NotFound=look_again InvalidInstanceID.Malformed=report
InvalidParameterValue=leave_alone UnsupportedHibernationConfiguration=leave_alone UnsupportedOperation=leave_alone
Unsupported=leave_alone IncorrectSpotRequestState=leave_alone OperationNotPermitted=held
UnauthorizedOperation=call_a_person AuthFailure=call_a_person OptInRequired=call_a_person
PendingVerification=call_a_person Blocked=call_a_person ExpiredToken=call_a_person RequestExpired=call_a_person
IdempotentParameterMismatch=report
"""
"""Our reading of what EC2's documentation says about these codes."""


@pytest_asyncio.fixture(name="starts", scope="module", loop_scope="module")
async def _starts():
    """Start VMs in a world in which each start fails with a different code; gives the outcomes by code, and a listing."""
    world = CloudSetup(fleets=(FleetSetup("web", len(CODES)),)).world(0.0)
    ids = dict(zip(CODES, (view.id for view in world.views(0.0)), strict=True))
    faults = tuple(
        Fault(FaultKind.API_ERROR, code=code, vm_ids=(vm_id,), actions=("StartInstances",))
        for code, vm_id in ids.items()
    )
    setup = CloudSetup(fleets=(FleetSetup("web", len(CODES)),), faults=faults, api_limits=False)
    async with EndpointProcess(setup) as process:
        settings = Ec2Settings("us-east-1", process.url, **KEYS)
        async with await Ec2Provider.open(settings, SystemClock()) as provider:
            outcomes = await asyncio.gather(*(provider.start([vm_id]) for vm_id in ids.values()))
            listing = await provider.list_vms()
            yield dict(zip(ids, (each[0] for each in outcomes), strict=True)), listing


async def test_each_code_comes_back_as_what_the_table_says_and_nothing_is_started(starts):
    outcomes, listing = starts
    found = {code: (o.kind, o.code) for code, o in outcomes.items()}
    assert found == {code: (kind, code) for code, kind in CODES.items()}
    assert {str(vm.state) for vm in listing.vms} == {"stopped"}


@pytest.mark.parametrize("line", PUBLISHED.split())
async def test_the_reaction_is_the_documented_one(line):
    code, _, reaction = line.partition("=")
    assert REACTIONS[code] is Reaction[reaction.upper()]


@pytest.mark.parametrize("code", CODES)
async def test_what_the_daemon_does_is_the_reaction(code):
    verdict = verdict_of(Outcome("i-1", CODES[code], code))
    match REACTIONS[code]:
        case Reaction.ELSEWHERE:
            assert verdict is not None
            assert verdict.blame is FailureCause.PLACE
        case Reaction.OWN_ROOM:
            assert verdict is not None
            assert verdict.blame is FailureCause.RESERVED
        case Reaction.OTHER_FAMILY:
            assert verdict is not None
            assert verdict.blame is FailureCause.QUOTA
        case Reaction.LOOK_AGAIN:
            # A listing settles it in seconds; a VM that cannot be started is held for minutes.
            assert verdict is not None
            assert verdict.weight <= 0.1
        case Reaction.LEAVE_ALONE | Reaction.HELD | Reaction.REPORT:
            assert verdict is not None
            assert verdict.quarantines
        case _:
            assert verdict is None


@pytest.mark.parametrize(
    "code", ["RequestLimitExceeded", "InternalError", "UnauthorizedOperation", "InvalidParameterValue"]
)
async def test_reads_are_repeated_where_that_may_help_and_changes_never(ec2, provider, say, code):
    ec2.script["DescribeInstances"] = ec2.script["StartInstances"] = [say.error(503, code)]
    listing = await provider.list_vms()
    await provider.start([say.vm_id(1)])
    assert not listing.complete
    again = may_be_read_again(Failure(CODES[code], code, ""))
    assert len(ec2.requests["DescribeInstances"]) == (READ_ATTEMPTS if again else 1)
    assert len(ec2.requests["StartInstances"]) == 1
    assert again == (code in {"RequestLimitExceeded", "InternalError"})


async def test_a_read_that_succeeds_the_second_time_has_succeeded(ec2, provider, say):
    ec2.script["DescribeInstances"] = [say.error(503, "Unavailable"), say.page([1, 2])]
    listing = await provider.list_vms()
    assert (listing.complete, len(listing.vms)) == (True, 2)


async def test_a_code_that_nobody_knows_is_judged_by_what_it_means():
    assert reaction_to(Failure(OutcomeKind.REFUSED, "SomethingNew", "")) is Reaction.LEAVE_ALONE
    assert reaction_to(Failure(OutcomeKind.UNKNOWN, "HTTP502", "")) is Reaction.LIST_FIRST
