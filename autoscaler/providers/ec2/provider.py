"""EC2 behind the Provider port.

Rules: a change is one call on the wire (`retype` makes one for each VM); grouping, retries and pacing belong to the caller.
`classify` turns EC2's answers into Outcomes, and `wire` its listings into Vms. No botocore type goes in or out.

For operators, in addition to `deploy/iam-policy.json`: VMs whose launch template names an instance profile need
iam:PassRole on its role, and VMs with volumes under a customer-managed key need kms:CreateGrant on that key.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Self

import structlog

from autoscaler.errors import InvariantError, ProviderError
from autoscaler.ports import (
    BATCH_REFUSED,
    FLEET_TAG,
    Clock,
    LaunchSpec,
    Listing,
    Outcome,
    OutcomeKind,
    ProvisionSpec,
    UnreadableTemplate,
    Vm,
)
from autoscaler.providers.ec2.classify import NOT_IN_REPLY, outcomes_of
from autoscaler.providers.ec2.client import LAUNCHED, Ec2Client, Reply, open_client, open_session
from autoscaler.providers.ec2.listing import FIRST_PAGE, describe_page
from autoscaler.providers.ec2.listing_process import ListingProcess
from autoscaler.providers.ec2.operations import Operation
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.ec2.wire import STATES, ReplyPage, vm_of
from autoscaler.providers.failing import Failure, made_of

CHECKED_BATCH: Final = 100
"""Most ids in one DescribeInstanceStatus call."""

_TEMPLATE_ID: Final = re.compile(r"lt-[0-9a-f]{8,17}")


class Ec2Provider:
    """VMs of an EC2 account in one Region; implements the Provider port. Created by `open`.

    If a refusal names some of the VMs in a call, those get EC2's code and the others `ports.BATCH_REFUSED`: nothing was
    done for them, and they may be sent again without the named ones.

    Args:
        reads: Client for reads.
        changes: Client for changes.
        settings: The settings of both clients.
        clock: Clock for the times of listings.
    """

    def __init__(self, reads: Ec2Client, changes: Ec2Client, settings: Ec2Settings, clock: Clock) -> None:
        self._reads = reads
        self._changes = changes
        self._settings = settings
        self._clock = clock
        self._process = ListingProcess(settings)
        self._one_listing = asyncio.Lock()
        self._many = False

    @classmethod
    async def open(cls, settings: Ec2Settings, clock: Clock) -> Self:
        """Set up both clients. Blocks the event loop for about a quarter of a second and sends nothing to EC2.

        A program with deadlines should call `gc.freeze()` after its setup: otherwise each full garbage collection visits the
        SDK's service model, some 100,000 objects, which blocks the loop for 80 to 180 ms.

        Raises:
            ConfigError: The profile is unknown, the endpoint is malformed, or no credentials were found.
        """
        session = await open_session(settings, _CredentialNews())
        reads = await open_client(session, settings, changes=False)
        try:
            changes = await open_client(session, settings, changes=True)
        except BaseException:
            await reads.close()
            raise
        return cls(reads, changes, settings, clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def listing_pid(self) -> int | None:
        """Process id of the listing process; None while there is none."""
        return self._process.pid

    async def list_vms(self) -> Listing:
        """List all VMs that carry the ownership tag; see `Provider.list_vms`.

        The first FIRST_PAGE VMs are read in this process and the rest in the listing process. If the last listing was
        larger than that, the listing process reads everything. A VM that is on two pages counts once, as last read.
        """
        async with self._one_listing:
            requested_at_s = self._clock.now()
            found: dict[str, Vm] = {}
            limit_s = self._settings.listing_deadline_s
            try:
                async with asyncio.timeout(limit_s):
                    problem = await self._collect(found)
            except TimeoutError:
                problem = f"the listing did not end within {limit_s:g} s"
            if not problem:
                self._many = len(found) > FIRST_PAGE
            return Listing(
                vms=tuple(found.values()),
                complete=not problem,
                requested_at_s=requested_at_s,
                received_at_s=self._clock.now(),
                error=problem and f"{problem} ({len(found)} VMs came)",
            )

    async def start(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Start stopped VMs in one call."""
        return await self._switch(Operation.START_INSTANCES, "StartingInstances", vm_ids)

    async def stop(
        self, vm_ids: Sequence[str], *, force: bool = False, hibernate: bool = False
    ) -> tuple[Outcome, ...]:
        """Stop running VMs in one call; they stay provisioned. With `force`, EC2 may lose data that the guest has not written."""
        more = {"Force": True} if force else {"Hibernate": True} if hibernate else {}
        return await self._switch(Operation.STOP_INSTANCES, "StoppingInstances", vm_ids, **more)

    async def retype(self, vm_ids: Sequence[str], vm_type: str) -> tuple[Outcome, ...]:
        """Change the machine type of stopped VMs, with one call for each."""
        outcomes: list[Outcome] = []
        for vm_id in vm_ids:
            reply = await self._changes.call(
                Operation.MODIFY_INSTANCE_ATTRIBUTE, InstanceId=vm_id, InstanceType={"Value": vm_type}
            )
            if isinstance(reply, Failure):
                outcomes += outcomes_of(reply, [vm_id])
            else:
                outcomes.append(Outcome(vm_id, OutcomeKind.ACCEPTED))
        return tuple(outcomes)

    async def terminate(self, vm_ids: Sequence[str]) -> tuple[Outcome, ...]:
        """Delete VMs for good."""
        return await self._switch(Operation.TERMINATE_INSTANCES, "TerminatingInstances", vm_ids)

    async def tag(self, vm_ids: Sequence[str], tags: Mapping[str, str]) -> tuple[Outcome, ...]:
        """Write tags in one call."""
        if not vm_ids:
            return ()
        reply = await self._changes.call(
            Operation.CREATE_TAGS, Resources=_unique(vm_ids), Tags=_wire_tags(tags)
        )
        if isinstance(reply, Failure):
            return outcomes_of(reply, vm_ids)
        return tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids)

    async def provision(self, spec: ProvisionSpec, count: int, token: str) -> tuple[Outcome, ...]:
        """Create `count` VMs, or as many as there is room for. A repeated token creates none and returns the same VMs.

        The VMs carry the ownership tag and their other tags from the first moment. The tag Name defaults to the fleet's name.
        """
        if count < 1 or not token:
            raise InvariantError(
                f"provision needs a count of 1 or more and a token, got {count} and {token!r}"
            )
        tags = {"Name": spec.fleet, **spec.tags, FLEET_TAG: spec.fleet}
        parameters = launch_parameters(spec, count, tags)
        reply = await self._changes.call(Operation.RUN_INSTANCES, **parameters, ClientToken=token)
        if isinstance(reply, Failure):
            return outcomes_of(reply, [""])
        launched: tuple[str, ...] = reply[LAUNCHED]
        if not launched:
            message = f"{count} VMs were asked for, and the reply names none"
            return (Outcome("", OutcomeKind.UNKNOWN, NOT_IN_REPLY, message),)
        return made_of(launched, count)

    async def checked(self, vm_ids: Sequence[str]) -> frozenset[str]:
        """Return the running VMs whose status checks have passed.

        If a call fails, none of its VMs is returned. But if EC2 refuses some ids, the others are asked for once more: a VM
        that has just been deleted must not make the others look unready.
        """
        ids = _unique(vm_ids)
        batches = [ids[at : at + CHECKED_BATCH] for at in range(0, len(ids), CHECKED_BATCH)]
        # At the same time: a probe ends with the tick, and would find none of a thousand VMs ready one batch after the other.
        return frozenset().union(*await asyncio.gather(*map(self._checked, batches)))

    async def launch_spec(self, spec: ProvisionSpec) -> LaunchSpec | UnreadableTemplate:
        """What a VM of this spec would be made from now, or why that cannot be read.

        The image is empty if the template looks it up at launch (`resolve:ssm:...`).
        """
        reply = await self._reads.call(
            Operation.DESCRIBE_LAUNCH_TEMPLATE_VERSIONS, **named_template(spec), Versions=[spec.version]
        )
        if isinstance(reply, Failure):
            return UnreadableTemplate(str(reply))
        found = reply.get("LaunchTemplateVersions", [])
        if len(found) != 1:
            return UnreadableTemplate(f"it has no version {spec.version}")
        data = found[0].get("LaunchTemplateData", {})
        text = json.dumps([data, spec.vm_type], sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        image = data.get("ImageId", "")
        return LaunchSpec(digest, str(found[0]["VersionNumber"]), image if image.startswith("ami-") else "")

    async def close(self) -> None:
        """Release connections and the listing process, each within a few seconds."""
        try:
            await self._process.close()
        finally:
            await self._reads.close()
            await self._changes.close()

    async def _collect(self, found: dict[str, Vm]) -> str:
        """Add the VMs of all pages to `found`, and return the first problem or an empty string."""
        token, problem = None, ""
        if not self._many:
            page = await describe_page(self._reads, None, FIRST_PAGE)
            problem = _add(page, found)
            token = page.next_token
            if token is None:
                return problem
        async with aclosing(self._process.pages(token)) as pages:
            async for page in pages:
                trouble = _add(page, found)
                problem = problem or trouble
        return problem

    async def _switch(
        self, operation: Operation, changed: str, vm_ids: Sequence[str], **more: object
    ) -> tuple[Outcome, ...]:
        if not vm_ids:
            return ()
        reply = await self._changes.call(operation, InstanceIds=_unique(vm_ids), **more)
        if isinstance(reply, Failure):
            return outcomes_of(reply, vm_ids)
        before = {each["InstanceId"]: each["PreviousState"]["Name"] for each in reply.get(changed, ())}
        return tuple(_switched(vm_id, before) for vm_id in vm_ids)

    async def _checked(self, ids: list[str]) -> frozenset[str]:
        reply = await self._status(ids)
        if isinstance(reply, Failure):
            ids = [each.vm_id for each in outcomes_of(reply, ids) if each.code == BATCH_REFUSED]
            reply = await self._status(ids) if ids else reply
        if isinstance(reply, Failure):
            return frozenset()
        return frozenset(
            each["InstanceId"]
            for each in reply.get("InstanceStatuses", ())
            if each["InstanceStatus"]["Status"] == each["SystemStatus"]["Status"] == "ok"
        )

    async def _status(self, ids: list[str]) -> Reply | Failure:
        try:
            return await self._reads.call(Operation.DESCRIBE_INSTANCE_STATUS, InstanceIds=ids)
        except ProviderError as error:
            return Failure(OutcomeKind.UNKNOWN, error.code, str(error))


def _add(page: ReplyPage, found: dict[str, Vm]) -> str:
    for row in page.rows:
        found[row.id] = vm_of(row)
    return page.problem


def _switched(vm_id: str, before: Mapping[str, str]) -> Outcome:
    if vm_id not in before:
        return Outcome(
            vm_id, OutcomeKind.UNKNOWN, NOT_IN_REPLY, "accepted, but the reply does not name this VM"
        )
    return Outcome(vm_id, OutcomeKind.ACCEPTED, previous_state=STATES.get(before[vm_id]))


def launch_parameters(spec: ProvisionSpec, count: int, tags: Mapping[str, str]) -> dict[str, Any]:
    """Build the parameters of RunInstances, except the token that makes repeating it harmless.

    EC2 makes as many VMs as there is room for, from MinCount to MaxCount. This way, one call under one token finds the
    room: further calls for smaller parts would spend an account's two calls a second, and each would need an intent and a
    token of its own. CreateFleet does the same, but needs further permissions and leaves a fleet to be deleted.
    """
    parameters: dict[str, Any] = {
        "LaunchTemplate": {**named_template(spec), "Version": spec.version},
        "MinCount": 1,
        "MaxCount": count,
        "TagSpecifications": [{"ResourceType": "instance", "Tags": _wire_tags(tags)}],
    }
    if spec.vm_type is not None:
        parameters["InstanceType"] = spec.vm_type
    if spec.subnet is not None:
        parameters["SubnetId"] = spec.subnet
    return parameters


def named_template(spec: ProvisionSpec) -> dict[str, str]:
    """Parameter that names the launch template, by id or by name."""
    by = "LaunchTemplateId" if _TEMPLATE_ID.fullmatch(spec.launch_template) else "LaunchTemplateName"
    return {by: spec.launch_template}


class _CredentialNews:
    """Logs that credentials cannot be renewed, while those in use have not ended, and that they could again."""

    def __init__(self) -> None:
        self.log = structlog.get_logger("autoscaler")

    def __call__(self, why: str) -> None:
        if why:
            text = f"EC2: the credentials cannot be renewed; those in use are used until they end: {why}"
            self.log.warning("credentials_not_renewed", text=text)
        else:
            self.log.info("credentials_renewed", text="EC2: the credentials were renewed")


def _wire_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _unique(vm_ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(vm_ids))
