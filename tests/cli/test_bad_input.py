"""Bad input to a daemon process: one sentence with advice, no traceback, and the previous state is kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
from aiohttp import web

from autoscaler.ports import TickRecord
from autoscaler.store import SqliteJournal
from tests.cli.conftest import (
    COMMAND,
    OPENER,
    TERMINATE,
    TWO_FLEETS,
    Program,
    call,
    daemon_settings,
    embedded_cloud,
    environment,
    get,
    strict_json,
    wait_for,
    write_policies,
)
from tests.contracts.test_journal_contract import fleet_tick
from tests.crash.test_full_disk import small_disk, write_for_ever

__all__ = ["small_disk"]

EXPIRED = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>RequestExpired</Code><Message>Request has expired.</Message></Error></Errors>
<RequestID>r-1</RequestID></Response>"""


@contextlib.asynccontextmanager
async def endpoint(status, body, content_type):
    """Answers every call alike."""

    async def answer(_request):
        return web.Response(status=status, text=body, content_type=content_type)

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def refused(folder, *arguments, **settings):
    """The message of a `run` that cannot go on."""
    result = call("run", *arguments, cwd=folder, **settings)
    assert (result.returncode, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (200, "<html><body>Please log in</body></html>", "text/html"),
            r"not from EC2; EC2 answers otherwise: check aws_endpoint_url",
        ),
        (
            (502, "<html><body>Bad Gateway</body></html>", "text/html"),
            r"HTTP502: Bad Gateway; EC2 answers otherwise: check aws_endpoint_url",
        ),
        ((400, EXPIRED, "text/xml"), r"RequestExpired: .*; check the credentials, their permissions"),
    ],
    ids=["HTML", "HTML with an error", "expired credentials"],
)
async def test_an_endpoint_that_answers_wrongly_from_the_start(tmp_path, answer, words):
    write_policies(tmp_path / "policies")

    def live(url):
        with Program("run", cwd=tmp_path, **daemon_settings(url, tmp_path / "state", tick_s=5)) as program:
            base = program.listens()
            line = program.hears(r"listing_failed +text=(.*)")[1]
            found = wait_for(
                lambda: (s := strict_json(get(f"{base}/api/v1/status")[1]))["fleets"][0]["decision"] and s
            )
            shown = subprocess.run(
                [COMMAND, "status", "--url", base], cwd=tmp_path, env=environment(), capture_output=True,
                text=True, check=False, timeout=300,
            )  # fmt: skip
            assert program.end(TERMINATE) == 0
            return line, found, shown, program.output()

    async with endpoint(*answer) as url:
        line, found, shown, said = await asyncio.to_thread(live, url)
    assert re.search(words, line)
    assert "Traceback" not in said
    assert all(re.search(words, fleet["listing_error"]) for fleet in found["fleets"])
    assert re.search(f"api, web: list of VMs: .*{words}", shown.stdout)
    assert not re.search(r"starting \d|provisioning", said)


async def test_credentials_that_expire_while_it_runs_hold_the_acts_and_it_says_whom_to_call(tmp_path):
    """The listing goes on; starts are denied."""
    policies = write_policies(tmp_path / "policies")
    (policies / "api.yaml").unlink()

    def live():
        with embedded_cloud(*TWO_FLEETS) as url:
            denied = {"kind": "api_error", "code": "RequestExpired", "actions": ["StartInstances"]}
            body = json.dumps(denied).encode()
            request = urllib.request.Request(
                f"{url}/_world/faults", body, {"Content-Type": "application/json"}
            )
            OPENER.open(request, timeout=300).close()
            with Program("run", cwd=tmp_path, **daemon_settings(url, tmp_path / "state")) as program:
                program.hears(
                    r"acting_held .*denies access: RequestExpired .*; check credentials and permissions"
                )
                program.hears("held, since the provider denies access")
                assert program.end(TERMINATE) == 0
                return program.output()

    assert "Traceback" not in await asyncio.to_thread(live)


# ── what cannot go on ───────────────────────────────────────────────────────────────────────────────────


def test_a_policy_with_a_typo_names_file_line_column_and_the_nearest_key(tmp_path):
    policies = write_policies(tmp_path / "policies")
    (policies / "api.yaml").unlink()
    text = (policies / "web.yaml").read_text().replace("minimum: 3", "minimun: 3")
    (policies / "web.yaml").write_text(text)
    said = refused(tmp_path, **daemon_settings("http://127.0.0.1:9", tmp_path / "state"))
    line, column = next(
        (n, row.index("minimun") + 1) for n, row in enumerate(text.splitlines(), 1) if "minimun" in row
    )
    assert f"web.yaml:{line}:{column}: error: unknown key `bounds.minimun`" in said
    assert "did you mean `minimum`?" in said
    assert said.endswith("run: no usable policy in policies; see `autoscaler validate`\n")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("2026-01-01T00:01:00Z,1\n2026-01-01T00:00:00Z,2\n", r"day\.csv:3:1: timestamp .* is before the row above it; sort"),
        ("2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,nan\n", r"day\.csv:3:22: value nan is not a finite number; leave the"),
        ("2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,-4\n", r"day\.csv:3:22: value -4 is negative; leave the row out"),
    ],
    ids=["backwards", "NaN", "negative"],
)  # fmt: skip
def test_a_trace_that_cannot_be_used_names_file_and_line(tmp_path, rows, words):
    policies = write_policies(tmp_path / "policies")
    (policies / "day.csv").write_text(f"timestamp,value\n{rows}")
    said = refused(tmp_path, **daemon_settings("http://127.0.0.1:9", tmp_path / "state"))
    assert re.search(f"run: fleet web is left out: .*{words}", said)
    assert said.endswith("run: no fleet is left to run\n")
    played = call("demo", "--trace", policies / "day.csv", "--kind", "gauge", "--for", "1s", cwd=tmp_path)
    assert played.returncode == 1
    assert re.search(f"^demo: .*{words}", played.stderr)
    assert "Traceback" not in played.stderr


def test_a_gap_in_a_trace_is_no_demand_known_and_holds_what_there_is(tmp_path):
    policies = write_policies(tmp_path / "policies")
    (policies / "api.yaml").unlink()
    # The recording is of minutes, is played from its second row on, and that one is missing.
    (policies / "day.csv").write_text("timestamp,value\n0,900\n120,900\n180,900\n")
    text = (
        (policies / "web.yaml")
        .read_text()
        .replace("loop: true", "loop: true, start_at: '1970-01-01T00:01:00Z'")
    )
    (policies / "web.yaml").write_text(text.replace("minimum: 3", "minimum: 1"))
    with (
        embedded_cloud(*TWO_FLEETS) as url,
        Program("run", cwd=tmp_path, **daemon_settings(url, tmp_path / "state")) as program,
    ):
        program.hears(r"source_failed .*trace day has a gap at 1970-01-01T00:01:\d\dZ")
        base = program.listens()
        fleet = wait_for(
            lambda: (f := strict_json(get(f"{base}/api/v1/status")[1])["fleets"][0])["decision"] and f
        )
        assert program.end(TERMINATE) == 0
    assert fleet["decision"]["demand"] is None
    assert fleet["decision"]["stop"] == 0
    assert "has a gap" in fleet["source_error"]


def test_a_full_state_directory_is_one_sentence_and_begins_once_there_is_room(small_disk: Path, tmp_path):
    write_policies(tmp_path / "policies")
    filler = small_disk / "filler"
    with contextlib.suppress(OSError):
        write_for_ever(filler)
    settings = daemon_settings("http://127.0.0.1:9", small_disk / "state")
    said = refused(tmp_path, **settings)
    assert said.count("\n") == 1
    assert "the disk is full. Free some space" in said
    filler.unlink()
    with Program("run", cwd=tmp_path, **settings) as program:
        program.listens()
        assert program.end(TERMINATE) == 0


def test_a_state_directory_of_another_user_is_one_sentence(tmp_path):
    """As root everything may be written, so the directory is one that nobody may write to: of the kernel."""
    write_policies(tmp_path / "policies")
    said = refused(tmp_path, **daemon_settings("http://127.0.0.1:9", "/proc/autoscaler"))
    assert said.count("\n") == 1
    assert said.startswith("run: The journal /proc/autoscaler/journal.sqlite cannot be opened: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "wbe"),
        ("export", "wbe", "x.csv"),
        ("events", "--fleet", "wbe"),
        ("shadow", "report", "wbe"),
    ],
    ids=" ".join,
)
def test_an_unknown_fleet_is_one_sentence_with_the_nearest_name(tmp_path, arguments):
    async def write():
        journal = SqliteJournal(tmp_path / "state", inline=True)
        await journal.record_tick(TickRecord(7, 70.0, (fleet_tick("web"), fleet_tick("api"))), ())
        await journal.close()

    asyncio.run(write())
    result = call(*arguments, cwd=tmp_path, state_dir=tmp_path / "state")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.endswith("has no fleet wbe; did you mean web?\n")
    assert result.stderr.count("\n") == 1


def test_an_unknown_fleet_of_policies_is_one_sentence(tmp_path):
    write_policies(tmp_path / "policies")
    result = call("policy", "show", "wbe", cwd=tmp_path)
    assert result.returncode == 1
    assert "did you mean web?" in result.stderr
    assert result.stderr.count("\n") == 1
