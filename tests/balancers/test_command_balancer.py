"""A command as a balancer: it runs without a shell, with limited time, and gets what it needs and nothing else."""

import os
import sys
from pathlib import Path

import pytest

from autoscaler.balancers.command import CommandBalancer
from autoscaler.ports import Member, Rotation
from tests.balancers.haproxy_process import wait_for
from tests.sources.doubles import ManualClock, vm

VMS = [vm("i-0", "10.0.0.1"), vm("i-1", "10.0.0.2")]


def command(tmp_path, body, *, timeout_s=30.0, environment=None):
    program = tmp_path / "hook"
    program.write_text(f"#!{sys.executable}\nimport os, sys\n{body}\n")
    program.chmod(0o700)
    return CommandBalancer([str(program), "--x"], ManualClock(), timeout_s=timeout_s, environment=environment)


async def test_it_is_told_the_vm_and_the_action_and_inherits_no_secret(tmp_path):
    given = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": "s3cret"}
    hook = command(
        tmp_path,
        f"open({str(tmp_path)!r} + '/' + os.environ['AUTOSCALER_VM_ID'], 'w').write("
        "repr((sys.argv[1:], sorted((k, v) for k, v in os.environ.items() if k.startswith(('AUTO', 'AWS'))))))",
        environment=given,
    )
    view = await hook.cordon(VMS)
    assert view.error == ""
    assert view.members == {vm.id: Member(Rotation.CORDONED, None) for vm in VMS}
    arguments, told = eval((tmp_path / "i-1").read_text())
    assert arguments == ["--x", "cordon"]
    assert told == [
        ("AUTOSCALER_ACTION", "cordon"),
        ("AUTOSCALER_FLEET", "web"),
        ("AUTOSCALER_VM_ADDRESS", "10.0.0.2"),
        ("AUTOSCALER_VM_ID", "i-1"),
        ("AUTOSCALER_VM_PUBLIC_ADDRESS", ""),
    ]


async def test_what_it_prints_is_how_the_vm_stands(tmp_path):
    hook = command(tmp_path, "print('cordoned 3' if os.environ['AUTOSCALER_VM_ID'] == 'i-0' else 'out')")
    view = await hook.look(VMS)
    assert view.members == {"i-0": Member(Rotation.CORDONED, 3), "i-1": Member(Rotation.OUT, None)}


async def test_a_vm_that_the_balancer_does_not_have_is_out_and_not_known(tmp_path):
    hook = command(tmp_path, "print('unknown')")
    for asked in (hook.look, hook.cordon, hook.admit):
        view = await asked(VMS[:1])
        assert view.members == {"i-0": Member(Rotation.OUT, 0, "unknown", known=False)}
        assert view.error.endswith("for i-0 says that the balancer does not have it")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('no such pool'); sys.exit(3)", "ended with code 3: no such pool"),
        ("print('perhaps')", "printed 'perhaps'; it must print in, cordoned or out"),
        ("print('in -4')", "printed 'in -4'"),
        ("print('unknown 4')", "printed 'unknown 4'"),
        ("pass", "printed nothing"),
    ],
)
async def test_what_goes_wrong_is_said_and_nothing_is_known_of_the_vm(tmp_path, body, said):
    view = await command(tmp_path, body).look(VMS[:1])
    assert view.members == {}
    assert said in view.error


async def test_a_program_that_is_not_there(tmp_path):
    hook = CommandBalancer([str(tmp_path / "gone")], ManualClock(), timeout_s=5.0)
    assert "cannot be run: no such file or directory" in (await hook.admit(VMS)).error


async def test_a_run_that_hangs_is_ended_with_its_children(tmp_path):
    # A shell, because it starts its child much sooner than Python.
    program = tmp_path / "hook"
    program.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/child\nwait\n")
    program.chmod(0o700)
    hook = CommandBalancer([str(program)], ManualClock(), timeout_s=1.5)
    view = await hook.admit(VMS[:1])
    assert "did not end within 1.5 s and was ended" in view.error
    child = int((tmp_path / "child").read_text())
    await wait_for(lambda: not _runs(child))


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
