"""Credentials that cannot be renewed: used until they end, said why in words, and no program left behind."""

import asyncio
import json
import logging
import os
import stat
from pathlib import Path

import pytest
from botocore import exceptions as aws

from autoscaler import aws_session
from autoscaler.aws_session import CredentialsError, KeptCredentials, open_aws_session
from autoscaler.clock import SystemClock, VirtualClock, run_virtual
from autoscaler.providers.ec2.examining import examine
from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings


async def sleep(seconds):
    clock = VirtualClock()
    await clock.sleep_until(clock.monotonic() + seconds)


class Refreshable:
    """The SDK's credentials on the loop's time: each renewal gives ones that live so long, or does what `fails` says."""

    method = "custom-process"

    def __init__(self, life_s):
        self.life_s, self.fails, self.renewals = life_s, None, 0
        self.ends_s = -1.0

    def refresh_needed(self, within_s=900.0):
        return self.ends_s - asyncio.get_running_loop().time() < within_s

    async def get_frozen_credentials(self):
        if not self.refresh_needed():
            return f"number {self.renewals}"
        self.renewals += 1
        if self.fails == "hangs":
            await sleep(1e6)
        if self.fails:
            raise self.fails
        self.ends_s = asyncio.get_running_loop().time() + self.life_s
        return f"number {self.renewals}"


def kept(life_s):
    told, inner = [], Refreshable(life_s)
    return KeptCredentials(inner, "profile a", told.append), inner, told


def test_short_ones_are_renewed_in_the_background_and_not_before_each_request():
    async def main():
        credentials, inner, told = kept(120.0)
        for _ in range(600):
            assert await credentials.get_frozen_credentials() in {
                f"number {inner.renewals}",
                f"number {inner.renewals - 1}",
            }
            await sleep(1.0)
        assert 10 <= inner.renewals <= 21
        assert told == []

    run_virtual(main)


def test_very_short_ones_are_never_used_when_they_have_ended():
    async def main():
        credentials, inner, _ = kept(25.0)
        for _ in range(200):
            await credentials.get_frozen_credentials()
            assert not inner.refresh_needed(1.0)
            await sleep(1.0)

    run_virtual(main)


@pytest.mark.parametrize("fails", ["hangs", ValueError("no JSON")])
def test_those_that_cannot_be_renewed_are_used_until_they_end_and_come_back_by_themselves(fails):
    async def main():
        loop = asyncio.get_running_loop()
        credentials, inner, told = kept(120.0)
        await credentials.get_frozen_credentials()
        inner.fails, longest_s, refusals = fails, 0.0, []
        for second in range(300):
            began_s = loop.time()
            try:
                await credentials.get_frozen_credentials()
            except CredentialsError as error:
                refusals.append((second, str(error)))
            longest_s = max(longest_s, loop.time() - began_s)
            await sleep(max(0.0, began_s + 1.0 - loop.time()))
        assert refusals[0][0] >= 109
        assert len(refusals) > 150
        assert all("no valid credentials (profile a, custom-process)" in text for _, text in refusals)
        assert longest_s <= 1.0
        assert inner.renewals < 60
        inner.fails, back_s = None, loop.time()
        while True:
            try:
                await credentials.get_frozen_credentials()
                break
            except CredentialsError:
                await sleep(1.0)
        assert loop.time() - back_s <= 22.0
        await sleep(1.0)
        assert len(told) == 2
        assert told[1] == ""

    run_virtual(main)


def test_the_first_fetch_is_waited_for_and_a_caller_that_gives_up_ends_it_for_no_other():
    async def main():
        credentials, inner, _ = kept(3600.0)
        inner.fails = "hangs"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await credentials.get_frozen_credentials()
        with pytest.raises(CredentialsError, match="did not end within 15 s"):
            await credentials.get_frozen_credentials()
        assert inner.renewals == 1

    run_virtual(main)


REFUSED = aws.ClientError({"Error": {"Code": "AccessDenied", "Message": "not you"}}, "AssumeRole")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (REFUSED, "AssumeRole was refused: AccessDenied not you"),
        (
            FileNotFoundError(2, "No such file or directory", "/t/token"),
            "no such file or directory: /t/token",
        ),
        (json.JSONDecodeError("x", "secret", 0), "not the JSON that AWS describes"),
        (RuntimeError("Credentials were refreshed, but ... still expired."), "check this machine's clock"),
        (
            aws.CredentialRetrievalError(
                provider="iam-role", error_msg="response did not contain: access_key"
            ),
            "does not answer, or gives none",
        ),
    ],
)
def test_whatever_fails_is_told_in_words(error, words):
    async def main():
        credentials, inner, _ = kept(120.0)
        inner.fails = error
        with pytest.raises(CredentialsError) as told:
            await credentials.get_frozen_credentials()
        assert words in str(told.value)
        assert "secret" not in str(told.value)

    run_virtual(main)


# ── the SDK's own search, with programs and files ───────────────────────────────────────────────────────────


@pytest.fixture(name="profiles")
def _profiles(monkeypatch, tmp_path):
    """Configuration files of AWS, with a program that supplies credentials as the test writes it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    program = tmp_path / "program"
    (tmp_path / "config").write_text(f"""
[profile program]
credential_process = {program}
[profile role]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = program
[profile token]
role_arn = arn:aws:iam::123456789012:role/x
web_identity_token_file = {tmp_path}/token
""")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def write(script):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return write


async def fetched(profile):
    found = await open_aws_session(profile).get_credentials()
    return await found.get_frozen_credentials()


@pytest.mark.parametrize("profile", ["program", "role"])
async def test_a_program_that_hangs_is_ended_with_its_children(profile, profiles, tmp_path, monkeypatch):
    monkeypatch.setattr(aws_session, "FETCH_WITHIN_S", 0.5)
    profiles(f"echo $$ > {tmp_path}/pid; sleep 600; true")
    with pytest.raises(CredentialsError, match=f"profile {profile}.*did not end within"):
        await fetched(profile)
    wait_until_gone(int((tmp_path / "pid").read_text()))


def wait_until_gone(group):
    """Return once no process of a group is left; the time limit of the test ends it otherwise."""
    while any(in_group(each, str(group)) for each in Path("/proc").glob("[0-9]*/stat")):
        pass


def in_group(file, group):
    try:
        state, _, its = file.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return its == group and state != "Z"


async def test_a_program_that_answers_otherwise_is_a_sentence_everywhere(profiles):
    profiles("echo '<html>please log in</html>'")
    settings = Ec2Settings("eu-central-1", "http://127.0.0.1:1", profile="token")
    with pytest.raises(CredentialsError, match=r"profile program.*not the JSON"):
        await fetched("program")
    async with await Ec2Provider.open(settings, SystemClock()) as provider:
        (outcome,) = await provider.start(["i-00000001"])
        listing = await provider.list_vms()
    assert (outcome.kind.value, outcome.code) == ("denied", "NoCredentials")
    assert "no such file or directory" in outcome.message
    assert "nothing was sent. Check what supplies them" in listing.error
    (finding,) = await examine(settings, (), SystemClock())
    assert "no such file or directory" in finding.text
    assert "check what supplies them" in finding.fix


@pytest.mark.parametrize("library", ["botocore", "aiobotocore"])
def test_the_library_prints_no_traceback_of_its_own(library):
    # Python prints warnings of loggers without any handler.
    assert logging.getLogger(library).handlers
