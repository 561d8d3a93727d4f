"""Systems Manager as a hook: runs a document on the VM through its agent, and waits for the result.

The agent of a VM that has just started registers after some seconds, and a new command is not visible to every reader at
once. So both sending and reading are repeated within the time of the run.

Rules of this file: a command whose time is over is cancelled. The output of a document is shown, but not its parameters.
No botocore type leaves this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from autoscaler.ports import Clock, Vm
from autoscaler.ports.hooks import HookResult
from autoscaler.providers.ec2.client import LateClient
from autoscaler.providers.ec2.settings import Ec2Settings

PERMISSIONS = frozenset(
    f"ssm:{action}" for action in ("SendCommand", "GetCommandInvocation", "CancelCommand")
)
"""Permissions that a fleet with `freshness.exercise.ssm` needs in addition to `deploy/iam-policy.json`; they are in
`deploy/iam-policy-ssm.json`."""
POLL_S = 2.0
_SHOWN = 200
_AGAIN = frozenset({"InvalidInstanceId", "ThrottlingException", "Throttling", "InternalServerError"})
"""Error codes after which the call may be repeated: the agent has not registered yet, or the service is busy."""
_NOT_KNOWN_YET = "InvocationDoesNotExist"
_UNDER_WAY = frozenset({"Pending", "InProgress", "Delayed", "Cancelling"})
_CLEANING_UP_S = 5.0


class SsmHook:
    """A VmHook that runs a Systems Manager document.

    Args:
        settings: How to reach AWS.
        document: Name of the document.
        parameters: Parameters of the document.
        clock: Clock that paces the polling.
        timeout_s: Longest time of one run, in seconds of the event loop.
    """

    def __init__(
        self,
        settings: Ec2Settings,
        document: str,
        parameters: Mapping[str, Sequence[str]],
        clock: Clock,
        *,
        timeout_s: float,
    ) -> None:
        self._document = document
        self._parameters = {name: list(values) for name, values in parameters.items()}
        self._clock = clock
        self.timeout_s = timeout_s
        config = AioConfig(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
        )
        self._client = LateClient(settings, "ssm", config)

    async def run(self, vm: Vm) -> HookResult:
        """Run the document on this VM and wait for it to end."""
        sent: list[str] = []
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._ran(vm.id, sent)
        except TimeoutError:
            await self._cancel(vm.id, sent)
            if not sent:
                said = f"{self._document} could not be sent within {self.timeout_s:g} s: {vm.id} is not known to Systems Manager"
                return HookResult(well=None, message=said)
            return HookResult(
                well=False,
                message=f"{self._document} did not end within {self.timeout_s:g} s and was cancelled",
            )
        except ClientError as error:
            told = error.response.get("Error", {})
            said = f"{self._document}: {told.get('Code', '')} {told.get('Message', '')}".rstrip()
            return HookResult(well=None, message=said[:_SHOWN])
        except (BotoCoreError, OSError) as error:
            return HookResult(well=None, message=f"{self._document}: {error}"[:_SHOWN])

    async def close(self) -> None:
        """Release connections."""
        await self._client.close()

    async def _ran(self, vm_id: str, sent: list[str]) -> HookResult:
        client = await self._client.opened()
        sent.append(await self._send(client, vm_id))
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + POLL_S)
            try:
                told = await client.get_command_invocation(CommandId=sent[0], InstanceId=vm_id)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in {_NOT_KNOWN_YET, *_AGAIN}:
                    raise
                continue
            if told["Status"] not in _UNDER_WAY:
                return self._result(told)

    async def _send(self, client: Any, vm_id: str) -> str:
        while True:
            try:
                reply = await client.send_command(
                    InstanceIds=[vm_id],
                    DocumentName=self._document,
                    Parameters=self._parameters,
                    # Systems Manager accepts no less than 30.
                    TimeoutSeconds=max(30, math.ceil(self.timeout_s)),
                )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in _AGAIN:
                    raise
                await self._clock.sleep_until(self._clock.monotonic() + POLL_S)
            else:
                return str(reply["Command"]["CommandId"])

    def _result(self, told: Mapping[str, Any]) -> HookResult:
        status = told["Status"]
        output = told.get("StandardErrorContent") or told.get("StandardOutputContent") or ""
        said = " ".join(output.split())[-_SHOWN:]
        if status == "Success":
            return HookResult(well=True, message=said)
        code = told.get("ResponseCode", -1)
        ended = f"{self._document} ended as {status}" + (f" with code {code}" if code >= 0 else "")
        return HookResult(well=False, message=f"{ended}: {said or 'it said nothing'}")

    async def _cancel(self, vm_id: str, sent: Sequence[str]) -> None:
        for command in sent:
            with contextlib.suppress(ClientError, BotoCoreError, OSError, TimeoutError):
                async with asyncio.timeout(_CLEANING_UP_S):
                    client = await self._client.opened()
                    await client.cancel_command(CommandId=command, InstanceIds=[vm_id])
