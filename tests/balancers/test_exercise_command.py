"""An operator's program as an exercise hook: it gets the VM, has limited time, and is judged by its exit code."""

import os
import sys

import pytest

from autoscaler.balancers.hooks import CommandHook
from tests.sources.doubles import vm

VM = vm("i-7", "10.0.0.7")


def hook(tmp_path, body, *, timeout_s=30.0, environment=None):
    program = tmp_path / "patch"
    program.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
    program.chmod(0o700)
    return CommandHook([str(program), "--all"], timeout_s=timeout_s, environment=environment)


async def test_it_is_told_the_vm_and_inherits_no_secret(tmp_path):
    body = "print(sys.argv[1:], *(k[11:] for k in sorted(os.environ) if k[:3] in ('AUT', 'AWS')), os.environ['AUTOSCALER_VM_ID'])"
    given = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": "s3cret"}
    result = await hook(tmp_path, body, environment=given).run(VM)
    names = "ACTION FLEET VM_ADDRESS VM_ID VM_PUBLIC_ADDRESS"
    assert (result.well, result.message) == (True, f"['--all'] {names} i-7")


@pytest.mark.parametrize(
    ("body", "well", "said"),
    [
        ("print('disk\\nis full'); sys.exit(3)", False, "ended with code 3: disk is full"),
        ("sys.exit(1)", False, "ended with code 1: it said nothing"),
        ("pass", True, ""),
    ],
)
async def test_the_exit_code_is_the_verdict(tmp_path, body, well, said):
    result = await hook(tmp_path, body).run(VM)
    assert result.well is well
    assert said in result.message


async def test_what_does_not_end_is_ended_and_the_vm_did_badly(tmp_path):
    result = await hook(tmp_path, "time.sleep(60)", timeout_s=0.5).run(VM)
    assert result.well is False
    assert "did not end within 0.5 s and was ended" in result.message


async def test_a_program_that_is_not_there_blames_no_vm(tmp_path):
    result = await CommandHook([str(tmp_path / "gone")], timeout_s=5.0).run(VM)
    assert result.well is None
    assert "cannot be run: no such file or directory" in result.message
