"""Systems Manager as a hook, against moto and against an endpoint that has bad days."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from aiohttp import web
from moto.server import ThreadedMotoServer

from autoscaler.clock import ScaledClock
from autoscaler.ports import FLEET_TAG, Vm, VmState
from autoscaler.providers.ec2 import ssm
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.ec2.ssm import SsmHook

REGION = "us-east-1"
KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
VM = Vm("i-0123456789abcdef0", "web", VmState.RUNNING, "m7i.large", "us-east-1a", "10.0.0.1", 0.0, "ami-1")
COMMANDS = {"commands": ["sudo /opt/patch"]}


def hook_on(url, *, timeout_s=20.0):
    settings = Ec2Settings(REGION, url, **KEYS)
    return SsmHook(settings, "AWS-RunShellScript", COMMANDS, ScaledClock(0.0, 100.0), timeout_s=timeout_s)


class ScriptedSsm:
    """Answers each operation as the test prescribes, with an error code or a reply; the last answer repeats."""

    def __init__(self):
        self.url = ""
        self.script = {"SendCommand": [{"Command": {"CommandId": "c" * 36}}], "CancelCommand": [{}]}
        self.asked = []

    async def answer(self, request):
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        self.asked.append((operation, await request.json()))
        answers = self.script[operation]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        status, body = (
            (200, found) if isinstance(found, dict) else (400, {"__type": found, "message": "said so"})
        )
        return web.Response(text=json.dumps(body), status=status, content_type="application/x-amz-json-1.1")

    def count(self, operation):
        return sum(each == operation for each, _ in self.asked)


@pytest_asyncio.fixture(name="scripted")
async def _scripted():
    scripted = ScriptedSsm()
    app = web.Application()
    app.router.add_post("/", scripted.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield scripted
    await runner.cleanup()


async def run(hook):
    try:
        return await hook.run(VM)
    finally:
        await hook.close()


def invocation(status, **fields):
    return {
        "Status": status,
        "ResponseCode": 0,
        "StandardOutputContent": "",
        "StandardErrorContent": "",
        **fields,
    }


async def test_a_document_is_run_on_the_vm_and_its_end_is_waited_for(scripted):
    scripted.script["GetCommandInvocation"] = [
        "InvocationDoesNotExist",
        invocation("Pending"),
        invocation("InProgress"),
        invocation("Success", StandardOutputContent="3 packages\n"),
    ]
    result = await run(hook_on(scripted.url))
    assert (result.well, result.message) == (True, "3 packages")
    (_, sent) = scripted.asked[0]
    assert sent["InstanceIds"] == [VM.id]
    assert (sent["DocumentName"], sent["Parameters"]) == ("AWS-RunShellScript", COMMANDS)
    assert sent["TimeoutSeconds"] >= 30
    assert scripted.count("GetCommandInvocation") == 4
    assert scripted.count("SendCommand") == 1


async def test_a_document_that_fails_is_the_vms_failure_with_its_own_words(scripted):
    scripted.script["GetCommandInvocation"] = [
        invocation("Failed", ResponseCode=7, StandardErrorContent="no space\nleft")
    ]
    result = await run(hook_on(scripted.url))
    assert (result.well, result.message) == (
        False,
        "AWS-RunShellScript ended as Failed with code 7: no space left",
    )


async def test_an_agent_that_has_not_registered_yet_is_waited_for(scripted):
    scripted.script["SendCommand"].insert(0, "InvalidInstanceId")
    scripted.script["SendCommand"].insert(0, "ThrottlingException")
    scripted.script["GetCommandInvocation"] = [invocation("Success")]
    assert (await run(hook_on(scripted.url))).well is True
    assert scripted.count("SendCommand") == 3


async def test_a_vm_that_never_registers_is_not_to_blame(scripted):
    scripted.script["SendCommand"] = ["InvalidInstanceId"]
    result = await run(hook_on(scripted.url, timeout_s=0.5))
    assert result.well is None
    assert "not known to Systems Manager" in result.message
    assert scripted.count("CancelCommand") == 0


async def test_what_does_not_end_is_cancelled_and_is_the_vms_failure(scripted):
    scripted.script["GetCommandInvocation"] = [invocation("Success"), invocation("InProgress")]
    hook = hook_on(scripted.url)
    await hook.run(VM)  # opens the connection, which takes long under load
    hook.timeout_s = 1.0
    result = await run(hook)
    assert result.well is False
    assert "did not end within 1 s" in result.message
    (_, cancelled) = scripted.asked[-1]
    assert cancelled == {"CommandId": "c" * 36, "InstanceIds": [VM.id]}


@pytest.mark.parametrize("code", ["AccessDeniedException", "InvalidDocument"])
async def test_what_may_not_be_run_blames_no_vm(scripted, code):
    scripted.script["SendCommand"] = [code]
    result = await run(hook_on(scripted.url))
    assert result.well is None
    assert code in result.message
    assert "not-a-secret" not in result.message


async def test_an_endpoint_that_is_not_there_blames_no_vm():
    result = await run(hook_on("http://127.0.0.1:9", timeout_s=5.0))
    assert result.well is None
    assert "Could not connect" in result.message


async def test_it_speaks_the_protocol_that_moto_serves():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        names = {f"aws_{name}": value for name, value in KEYS.items()}
        async with get_session().create_client(
            "ec2", region_name=REGION, endpoint_url=url, **names
        ) as client:
            made = await client.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)
        vm_id = made["Instances"][0]["InstanceId"]
        hook = hook_on(url)
        result = await hook.run(Vm(vm_id, "web", VmState.RUNNING, "m", "a", None, 0.0, "ami-1"))
        await hook.close()
        assert result.well is True
    finally:
        server.stop()


def test_the_policy_handed_out_allows_what_it_calls_on_owned_vms_and_nothing_else():
    path = Path(__file__).parents[2] / "deploy" / "iam-policy-ssm.json"
    statements = json.loads(path.read_text(encoding="utf-8"))["Statement"]
    actions = {
        a for s in statements for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert actions == ssm.PERMISSIONS
    (on_vms,) = [s for s in statements if s["Resource"] == "arn:aws:ec2:*:*:instance/*"]
    assert on_vms["Condition"] == {"Null": {f"ssm:resourceTag/{FLEET_TAG}": "false"}}
    usual = json.loads(path.with_name("iam-policy.json").read_text(encoding="utf-8"))
    assert "ssm:" not in json.dumps(usual)
