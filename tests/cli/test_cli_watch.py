"""`status --watch` while a daemon begins, changes, ends and comes back, in a terminal and elsewhere."""

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from aiohttp import web

from autoscaler.cli.status import status_lines
from tests.cli.conftest import COMMAND, INTERRUPT, Program, call, environment, wait_for


def answer(tick, *, name="web", desired=3, demand=250.0, error="", healthy=True, **decided):
    decision = {
        "demand": demand, "forecast_hi": None, "desired": desired, "in_service": 2, "starting": desired - 2,
        "stopped": 5, "warm_target": 5, "shortage": 0.0, "start": 0, "stop": 0, "provision": 0,
        "sentence": f"holding {desired} for {demand:g}/s",
    } | decided  # fmt: skip
    fleet = {
        "fleet": name, "act": True, "cost_total": 1.5, "source_error": error, "listing_error": "",
        "unsettled_actions": [7] if error else [], "decision": decision,
    }  # fmt: skip
    return {
        "at_s": 1_772_323_200.0 + 10 * tick, "tick": tick, "healthy": healthy,
        "problems": [] if healthy else ["fleet web is stale"], "fleets": [fleet],
    }  # fmt: skip


class Daemon:
    """Answers as a daemon does, with what it is given."""

    def __init__(self, port):
        self.port, self.says, self.runner = port, answer(1), None

    async def begin(self):
        app = web.Application()
        app.router.add_get("/api/v1/status", self.tell)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()

    async def tell(self, _request):
        return web.json_response(self.says)

    async def end(self):
        await self.runner.cleanup()


async def hears(program, pattern):
    return await asyncio.to_thread(program.hears, pattern)


async def test_elsewhere_than_in_a_terminal_there_is_one_line_per_change(tmp_path, free_port):
    daemon = Daemon(free_port)
    with Program("status", "--watch", "--every", "0.1s", cwd=tmp_path, http_port=free_port) as program:
        await hears(program, "no daemon answers at")
        await daemon.begin()
        await hears(program, "2026-03-01T00:00:10Z  web: 2 serve, 1 start, 5 warm: holding 3 for 250/s")
        daemon.says = answer(2, demand=251.0)
        daemon.says = answer(3, desired=4, error="10.0.0.7 timed out")
        await hears(program, "00:00:30Z  web: 2 serve, 2 start, 5 warm: holding 4")
        await hears(program, "00:00:30Z  web: metrics: 10.0.0.7 timed out")
        await hears(
            program, "00:00:30Z  web: outcomes: what became of 1 call is not known until a listing shows it"
        )
        place = {"provider": "far", "listed_at_s": None, "error": "far: gone", "sentence": ""}
        daemon.says = answer(4, desired=4) | {"providers": [place]}
        for minutes in (2, 3):
            old = place | {"sentence": f"no complete list of VMs for {minutes} min: far: gone"}
            daemon.says = answer(4, desired=4) | {"providers": [old]}
            await hears(program, "00:00:40Z  places: no complete list of VMs for 2 min: far: gone")
        shown = await asyncio.to_thread(call, "status", cwd=tmp_path, http_port=free_port)
        assert "places: no complete list of VMs for 3 min: far: gone" in shown.stdout
        daemon.says = answer(4, desired=4, healthy=False)
        await hears(program, "00:00:40Z  unhealthy: fleet web is stale")
        await daemon.end()
        await asyncio.to_thread(
            wait_for, lambda: program.output().count("no daemon answers at") == 2, program.output
        )
        await daemon.begin()
        await asyncio.to_thread(wait_for, lambda: program.output().count("holding 4") == 2, program.output)
        assert await asyncio.to_thread(program.end, INTERRUPT) == 130
        await daemon.end()
    said = program.output()
    assert said.count("holding 3") == said.count("places: ") == 1
    assert said.endswith("status: interrupted\n")
    assert "Traceback" not in said


async def test_where_places_have_names_each_fleet_has_its_own(tmp_path, free_port):
    daemon = Daemon(free_port)
    await daemon.begin()
    daemon.says = answer(1)
    plain = await asyncio.to_thread(call, "status", cwd=tmp_path, http_port=free_port)
    assert "place" not in plain.stdout
    daemon.says["fleets"][0]["provider"] = "far"
    for columns, row in (
        ("200", r"\nweb +far +yes +250 "),
        ("60", r"\nweb: place far, acts yes, demand/s 250, "),
    ):
        shown = await asyncio.to_thread(
            subprocess.run,
            [COMMAND, "status"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300,
            env={**environment(http_port=free_port), "COLUMNS": columns},
        )  # fmt: skip
        assert re.search(row, shown.stdout)
    await daemon.end()


async def test_programs_get_a_document_for_each_tick(tmp_path, free_port):
    daemon = Daemon(free_port)
    await daemon.begin()
    with Program("status", "-w", "--every", "0.1s", "--json", cwd=tmp_path, http_port=free_port) as program:
        await hears(program, '"tick": 1')
        daemon.says = answer(2)
        await hears(program, '"tick": 2')
        await daemon.end()
        await hears(program, '"error": "no daemon')
        assert await asyncio.to_thread(program.end, INTERRUPT) == 130
    documents = [json.loads(line) for line in program.out.read_text().splitlines()]
    assert [document.get("tick") for document in documents] == [1, 2, None]


async def test_a_daemon_that_is_long_in_answering_is_waited_for_as_long_as_asked(tmp_path, free_port):
    daemon, held = Daemon(free_port), asyncio.Event()

    async def tell(request):
        await held.wait()
        return await Daemon.tell(daemon, request)

    daemon.tell = tell
    await daemon.begin()
    impatient = await asyncio.to_thread(
        call, "status", "--timeout", "0.2s", cwd=tmp_path, http_port=free_port
    )
    assert (impatient.returncode, impatient.stdout) == (1, "")
    assert impatient.stderr == (
        f"status: the daemon at http://127.0.0.1:{free_port} has not answered within 0.2 s; it may be busy: "
        "wait longer with --timeout\n"
    )
    patient = asyncio.create_task(asyncio.to_thread(call, "status", cwd=tmp_path, http_port=free_port))
    await asyncio.to_thread(wait_for, lambda: len(daemon.runner.server.connections) > 0)
    held.set()
    assert "holding 3" in (await patient).stdout
    await daemon.end()


async def shown_of(daemon, tmp_path, *arguments, columns=80):
    """What status prints of what a daemon says."""
    await daemon.begin()
    shown = await asyncio.to_thread(
        subprocess.run,
        [COMMAND, "status", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**environment(http_port=daemon.port), "COLUMNS": str(columns)},
    )  # fmt: skip
    await daemon.end()
    return shown


def twelve_fleets():
    """Two lack metrics for the same reason, one is short, one is in shadow."""
    says = answer(1)
    says["fleets"] = [
        answer(1, name=f"fleet-{at:02d}", error="refused" if at in (3, 7) else "", shortage=57.0 if at in (5, 11) else 0.0)[
            "fleets"
        ][0]
        for at in range(12)
    ]  # fmt: skip
    says["fleets"][11]["act"] = False
    return says


async def test_what_needs_a_look_stands_first_and_the_same_trouble_is_told_once(tmp_path, free_port):
    daemon = Daemon(free_port)
    daemon.says = twelve_fleets()
    lines = (await shown_of(daemon, tmp_path)).stdout.splitlines()
    assert lines[1] == "11 of 12 fleets act: 22 VMs serve, 11 start, 55 wait stopped; cost 16.50"
    assert lines[2:4] == ["1 fleet is short: fleet-05 of 57/s", "fleet-03, fleet-07: metrics: refused"]
    head = next(at for at, line in enumerate(lines) if line.startswith("fleet "))
    assert head == 5
    assert not [line for line in lines[head:] if "refused" in line]


def test_how_short_a_fleet_is_makes_no_line_at_every_tick():
    first, second = (status_lines(answer(tick, shortage=short)) for tick, short in ((1, 57.0), (2, 58.0)))
    assert first["web short"][0] == second["web short"][0]
    assert first["web short"][1] == "web: short: 57/s of its demand find no VM"


async def test_a_row_loses_columns_before_it_becomes_a_sentence(tmp_path, free_port):
    daemon = Daemon(free_port)
    daemon.says = answer(1, name="video-transcode", demand=1234567.0)
    lines = (await shown_of(daemon, tmp_path, columns=80)).stdout.splitlines()
    assert lines[1].split() == [
        "fleet",
        "acts",
        "demand/s",
        "desired",
        "serve",
        "start",
        "warm",
        "short/s",
        "cost",
    ]
    assert lines[2].split()[2] == "1,234,567"


async def test_one_of_many_fleets_is_shown_alone(tmp_path, free_port):
    daemon = Daemon(free_port)
    daemon.says = twelve_fleets()
    shown = (await shown_of(daemon, tmp_path, "fleet-05")).stdout
    assert "1 fleet is short: fleet-05 of 57/s" in shown
    assert "fleet-03" not in shown


async def test_a_fleet_that_there_is_not_is_told_with_the_nearest(tmp_path, free_port):
    daemon = Daemon(free_port)
    daemon.says = answer(1)
    shown = await shown_of(daemon, tmp_path, "wbe")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.endswith("has no fleet wbe; did you mean web?\n")


@pytest.mark.parametrize("columns", [40, 60])
async def test_where_a_row_has_no_room_no_number_is_cut(tmp_path, free_port, columns):
    daemon = Daemon(free_port)
    daemon.says = answer(1, demand=1234567.0)
    await daemon.begin()
    shown = await asyncio.to_thread(
        subprocess.run,
        [COMMAND, "status"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300,
        env={**environment(http_port=free_port), "COLUMNS": str(columns)},
    )  # fmt: skip
    await daemon.end()
    assert "…" not in shown.stdout
    told = " ".join(shown.stdout.split())
    assert (
        "web: acts yes, demand/s 1,234,567, 95 %/s ?, desired 3, serve 2, start 1, warm 5 of 5, short/s 0, cost 1.50"
        in told
    )


def in_terminal(theirs, cwd, port):
    return subprocess.Popen(
        [COMMAND, "status", "--watch", "--every", "0.1s"], stdin=theirs, stdout=theirs, stderr=theirs,
        cwd=cwd, env={**environment(http_port=port), "TERM": "xterm"},
    )  # fmt: skip


@pytest.mark.parametrize("columns", [80, 120])
async def test_in_a_terminal_it_is_refreshed_in_place_and_the_cursor_comes_back(tmp_path, free_port, columns):
    daemon = Daemon(free_port)
    await daemon.begin()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    screen = bytearray()

    def read():
        screen.extend(os.read(ours, 65536))
        return bytes(screen)

    process = await asyncio.to_thread(in_terminal, theirs, tmp_path, free_port)
    try:
        await asyncio.to_thread(wait_for, lambda: b"holding 3" in read())
        daemon.says = answer(2, desired=4)
        await asyncio.to_thread(wait_for, lambda: b"holding 4" in read())
        await daemon.end()
        await asyncio.to_thread(wait_for, lambda: b"no daemon answers" in read())
        process.send_signal(INTERRUPT)
        await asyncio.to_thread(wait_for, lambda: b"interrupted" in read())
        assert await asyncio.to_thread(process.wait, 300) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    shown = screen.decode()
    assert "\x1b[1A" in shown, "the cursor goes up to the picture before"
    assert "\x1b[?1049h" not in shown, "the other screen is left alone"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"
    # The last picture stays, with why there is no newer one.
    last = shown[shown.rindex("fleet") :]
    assert "holding 4" in last
    assert "no daemon answers" in last


def test_how_often_is_asked_without_watching(invoke):
    assert invoke("status", "--every", "5s").exit_code == 2


def test_watching_what_is_no_address_ends_at_once(invoke):
    result = invoke("status", "--watch", "--url", "localhost:9412")
    assert result.exit_code == 1
    assert "localhost:9412 is not an address" in result.stderr
