"""User data that reports when a VM is prepared, run as on a VM, with an instance metadata service on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from autoscaler.daemon.vms.pool_tags import BAKED_AT_TAG, PREPARED_TAG, VERSION_TAG, baked_at_s
from tests.daemon.builders import vm
from tests.real import require_real

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPT = DEPLOY / "user-data-prepared.sh"


@pytest_asyncio.fixture(name="imds")
async def _imds():
    """EC2's instance metadata service, version 2, which requires a token."""

    async def token(request):
        assert request.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        return web.Response(text="a-token")

    async def about(request):
        if request.headers.get("X-aws-ec2-metadata-token") != "a-token":
            return web.Response(status=401)
        told = {"instance-id": "i-0123456789abcdef0", "placement/region": "eu-central-1"}
        return web.Response(text=told[request.match_info["what"]])

    app = web.Application()
    app.router.add_put("/latest/api/token", token)
    app.router.add_get("/latest/meta-data/{what:.*}", about)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def boot(imds, folder, *, tool, codes, **variables):
    """Run the script with programs that end with these codes; return its exit code and each program's arguments."""
    require_real("curl", shutil.which("curl"))
    for name, code in {"aws": 0, **codes}.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/{name}.told\nexit {code}\n')
        program.chmod(0o700)
    given = {"PATH": f"{folder}:{os.environ['PATH']}", "IMDS": imds, "TOOL": tool, **variables}
    process = await asyncio.create_subprocess_exec(str(SCRIPT), env=given, stderr=asyncio.subprocess.DEVNULL)
    code = await asyncio.wait_for(process.wait(), 300)
    return code, {path.stem: path.read_text().split("\n")[:-1] for path in folder.glob("*.told")}


@pytest.mark.parametrize(
    ("tool", "program", "code"),
    [
        ("ansible", "ansible-pull", 0),
        ("chef", "chef-client", 0),
        ("puppet", "puppet", 0),
        ("puppet", "puppet", 2),
    ],
)
async def test_a_vm_that_was_configured_says_so_with_version_and_time(imds, tmp_path, tool, program, code):
    ended, told = await boot(imds, tmp_path, tool=tool, codes={program: code}, VERSION="7.2")
    assert ended == 0
    assert told[program]
    asked = told["aws"]
    assert asked[:7] == [
        "ec2", "create-tags", "--region", "eu-central-1", "--resources", "i-0123456789abcdef0", "--tags",
    ]  # fmt: skip
    tags = dict(re.fullmatch("Key=(.*),Value=(.*)", each).groups() for each in asked[7:])
    assert (tags[PREPARED_TAG], tags[VERSION_TAG]) == ("true", "7.2")
    assert baked_at_s(vm(tags={BAKED_AT_TAG: tags[BAKED_AT_TAG]})) > 1.7e9


@pytest.mark.parametrize(
    ("tool", "program", "code"),
    [
        ("ansible", "ansible-pull", 2),
        ("chef", "chef-client", 1),
        ("puppet", "puppet", 1),
        ("puppet", "puppet", 4),
        ("puppet", "puppet", 6),
        ("salt", "salt-call", 0),
    ],
)
async def test_a_vm_that_was_not_never_says_so(imds, tmp_path, tool, program, code):
    ended, told = await boot(imds, tmp_path, tool=tool, codes={program: code})
    assert ended != 0
    assert "aws" not in told


def test_the_vms_own_role_may_write_these_tags_on_vms_of_fleets_and_nothing_else():
    (statement,) = json.loads((DEPLOY / "iam-policy-prepared.json").read_text())["Statement"]
    assert statement["Action"] == "ec2:CreateTags"
    condition = statement["Condition"]
    assert condition["ForAllValues:StringEquals"]["aws:TagKeys"] == [PREPARED_TAG, VERSION_TAG, BAKED_AT_TAG]
    assert condition["Null"] == {"aws:ResourceTag/autoscaler:fleet": "false"}
