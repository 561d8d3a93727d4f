"""Commands over a daemon's socket: answers, refusals, the caller's identity, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import select
import shutil
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest

from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.operating.operators import ChangeRequest
from autoscaler.errors import DaemonError, JournalError, JournalLateError
from autoscaler.ports import Verb
from autoscaler.web.control import LARGEST_BODY, MOST_CONNECTIONS, Control
from autoscaler.web.status import status
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, policy
from tests.web.test_web_site import SetClock

ME = pwd.getpwuid(os.geteuid()).pw_name
PAUSE = {"verbs": ["stop"], "fleets": ["web"], "reason": "migration", "for_s": 60}


class Serving:
    """A daemon with its control socket; nothing ticks but by hand."""

    def __init__(self, path):
        self.path = path
        self.bench = Bench(vms=4, running=2, clock=SetClock())
        self.bench.add(policy("web"), 150.0)
        self.daemon = Daemon(
            self.bench.clock, self.bench.setups, self.bench.journal, self.bench.telemetry, self.bench.settings
        )

    @asynccontextmanager
    async def asking(self):
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.path))) as session:
            yield session

    async def get(self, what):
        async with self.asking() as session, session.get(f"http://localhost/{what}") as answer:
            return answer.status, await answer.json()

    async def post(self, what, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.asking() as session, session.post(f"http://localhost/v1/{what}", data=data) as answer:
            return answer.status, await answer.json()


@pytest.fixture(name="serving")
async def _serving(tmp_path):
    made = Serving(tmp_path / "c.sock")
    async with Control(made.daemon, made.path, connection_s=5.0):
        yield made
    await made.bench.journal.close()


async def test_a_pause_its_answer_and_its_end(serving):
    code, answer = await serving.post("pause", PAUSE)
    assert code == 200
    assert (
        answer["sentences"][0]
        == "Nothing is stopped in web until 2026-11-24T10:01:00Z; starts, provisioning and refills go on."
    )
    (change,) = answer["changes"]
    assert change == {
        "id": 1, "change": "paused", "fleet": "web", "verb": "stop", "floor": None, "ceiling": None, "who": ME,
        "reason": "migration", "at_s": ORIGIN_S, "expires_at_s": ORIGIN_S + 60, "has_effect": True,
    }  # fmt: skip
    assert answer["in_force"] == [change]
    code, found = await serving.get("v1/operations")
    assert (code, found["in_force"], found["at_s"], found["tick_s"]) == (200, [change], ORIGIN_S, 10.0)
    assert found["sentences"] == [f"nothing is stopped in web until 2026-11-24T10:01:00Z ({ME}: migration)"]
    assert status(serving.daemon)["operations"] == {"in_force": [change], "sentences": found["sentences"]}
    serving.bench.clock.at_s = 60.0
    assert (await serving.get("v1/operations"))[1]["in_force"] == [], "it is over though no tick was since"
    code, answer = await serving.post("resume", {"verbs": ["stop"], "fleets": ["web"], "reason": "over"})
    assert (code, answer["changes"]) == (200, [])


async def test_every_kind_of_change(serving):
    bodies = (
        ("pause", {"verbs": ["provision", "start"], "all_fleets": True, "reason": "a", "no_expiry": True}),
        ("override", {"fleet": "web", "floor": 3, "ceiling": 5, "reason": "b", "until_s": ORIGIN_S + 60}),
        ("clear", {"fleet": "web", "reason": "c"}),
        ("resume", {"verbs": ["start"], "all_fleets": True, "reason": "d"}),
    )
    for what, body in bodies:
        assert (await serving.post(what, body))[0] == 200
    _, found = await serving.get("v1/operations")
    ((only,),) = (found["in_force"],)
    assert (only["fleet"], only["verb"], only["expires_at_s"]) == (None, "provision", None)
    kinds = [kind for _, kind, _ in serving.bench.events()]
    assert kinds == ["paused", "overridden", "override_cleared", "resumed"]


async def test_the_status_of_a_tick_says_what_held(serving):
    await serving.post("pause", PAUSE)
    await serving.post("override", {"fleet": "web", "ceiling": 1, "reason": "b", "no_expiry": True})
    serving.bench.setups[0].source.demand = 10.0
    await serving.daemon.tick(TICK_0)
    decision = status(serving.daemon)["fleets"][0]["decision"]
    assert (decision["paused"], decision["floor"], decision["ceiling"]) == (["stop"], None, 1)


BAD = {
    "not json": (b"{", 400, "body: Invalid JSON"),
    "no object": (b"[]", 400, "body: Input should be an object"),
    "nothing": (b"", 400, "Invalid JSON"),
    "not text": (b"\xff\xfe\x00", 400, "Invalid JSON"),
    "an unknown field": ({**PAUSE, "who": "root"}, 400, "who: Extra inputs are not permitted"),
    "no reason": ({k: v for k, v in PAUSE.items() if k != "reason"}, 400, "reason: Field required"),
    "an unknown verb": (
        {**PAUSE, "verbs": ["terminate"]},
        400,
        "verbs.0: terminate cannot be paused; start, stop, provision",
    ),
    "no verb": ({**PAUSE, "verbs": []}, 400, "verbs: List should have at least 1 item"),
    "text for a number": ({**PAUSE, "for_s": "60"}, 400, "for_s: Input should be a valid number"),
    "no number": (json.dumps(PAUSE).replace("60", "NaN").encode(), 400, "for_s"),
    "both": ({**PAUSE, "all_fleets": True}, 409, "and not both"),
    "neither": ({**PAUSE, "fleets": []}, 409, "name fleets, or all of them"),
    "no end": ({k: v for k, v in PAUSE.items() if k != "for_s"}, 409, "say until when it holds"),
    "two ends": ({**PAUSE, "no_expiry": True}, 409, "say until when it holds"),
    "a fleet without a name": ({**PAUSE, "fleets": [""]}, 400, "fleets.0: String should have at least 1"),
    "the past": ({**PAUSE, "for_s": -1}, 409, "it would end at"),
    "too large": (b" " * (LARGEST_BODY + 1), 413, "Too Large"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_request_is_one_sentence_and_changes_nothing(serving, name):
    body, code, words = BAD[name]
    found, answer = await serving.post("pause", body)
    assert (found, words in answer["error"]) == (code, True), answer
    assert await serving.bench.journal.changes_in_force() == ()
    assert (await serving.get("v1/operations"))[0] == 200


@pytest.mark.parametrize("path", ["", "v2/operations", "v1/pause", "metrics", "v1/../x"])
async def test_what_is_not_in_this_api_is_said(serving, path):
    code, answer = await serving.get(path)
    assert code in (404, 405)
    assert "is not in version 1 of this API" in answer["error"]


class Failing:
    """A journal that does not take changes."""

    def __init__(self, error):
        self.error = error

    async def changes(self, *given):
        raise self.error

    async def changes_in_force(self):
        return ()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (JournalError("the disk is full"), "could not be recorded, so it is not in force: the disk is full"),
        (
            JournalLateError("no answer"),
            "could not be recorded in time: no answer; it is not in force; should the",
        ),
    ],
)
async def test_a_journal_that_does_not_take_it_is_said_with_what_that_means(serving, error, words):
    serving.daemon.operators._recording = Failing(error)
    code, answer = await serving.post("pause", PAUSE)
    assert (code, words in answer["error"]) == (503, True), answer
    assert serving.daemon.operators.in_force() == ()


async def test_a_bug_is_said_and_logged_and_the_next_command_is_served(serving):
    recording = serving.daemon.operators._recording
    serving.daemon.operators._recording = Failing(ZeroDivisionError("oh"))
    code, answer = await serving.post("pause", PAUSE)
    assert (code, answer["error"]) == (500, "unexpected ZeroDivisionError: oh; please report")
    assert "unexpected ZeroDivisionError" in serving.bench.log.texts("operator")[0]
    serving.daemon.operators._recording = recording
    assert (await serving.post("pause", PAUSE))[0] == 200


# ── guests that behave badly ────────────────────────────────────────────────────────────────────────────


async def raw(path, sent):
    """What comes back for these bytes, up to the end."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), 300)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/operations HTTP/9.9\r\n\r\n",
        b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n{}",
        b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"",
    ],
    ids=lambda sent: repr(sent[:40]),
)
async def test_garbage_is_answered_or_cut_off_and_hurts_nobody(tmp_path, sent, caplog):
    made = Serving(tmp_path / "c.sock")
    async with Control(made.daemon, made.path, connection_s=1.0):
        answer = await raw(made.path, sent)
        assert answer == b"" or answer.startswith(b"HTTP/1.")
        assert b"200 OK" not in answer
        assert caplog.records == [], "nor does it fill the log"
        assert (await made.get("v1/operations"))[0] == 200
    await made.bench.journal.close()


async def test_one_who_says_nothing_is_cut_off_in_time(tmp_path):
    made = Serving(tmp_path / "c.sock")
    async with Control(made.daemon, made.path, connection_s=0.2):
        reader, writer = await asyncio.open_unix_connection(str(made.path))
        assert await asyncio.wait_for(reader.read(), 300) == b""
        writer.close()
    await made.bench.journal.close()


async def test_many_at_once_are_bounded_and_the_rest_is_served_afterwards(tmp_path):
    made = Serving(tmp_path / "c.sock")
    async with Control(made.daemon, made.path, connection_s=1.0) as control:
        guests = [await asyncio.open_unix_connection(str(made.path)) for _ in range(MOST_CONNECTIONS + 20)]
        ended = [asyncio.ensure_future(reader.read()) for reader, _ in guests]
        done, _ = await asyncio.wait(ended, timeout=300)
        assert len(done) == len(guests)
        assert len(control._runner.server.connections) == 0
        assert (await made.get("v1/operations"))[0] == 200
        for _, writer in guests:
            writer.close()
    await made.bench.journal.close()


async def test_one_who_hangs_up_does_not_cut_a_change_in_two(serving):
    begun, go_on = asyncio.Event(), asyncio.Event()
    recording = serving.daemon.operators._recording

    class Slow:
        async def changes(self, *given):
            begun.set()
            await go_on.wait()
            return await recording.changes(*given)

    serving.daemon.operators._recording = Slow()
    asking = asyncio.ensure_future(
        serving.daemon.operators.pause(ChangeRequest(("web",), "alice", "migration"), [Verb.STOP])
    )
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    serving.daemon.operators._recording = recording
    go_on.set()
    assert (await serving.post("pause", {**PAUSE, "verbs": ["start"]}))[0] == 200
    changes = [record.change.verb for record in await serving.bench.journal.changes_in_force()]
    assert changes == [Verb.STOP, Verb.START]
    assert {record.change.verb for record in serving.daemon.operators.in_force()} == {Verb.STOP, Verb.START}


async def test_a_second_daemon_on_the_socket_is_told(serving):
    with pytest.raises(DaemonError, match="another daemon listens on the control socket"):
        async with Control(serving.daemon, serving.path):
            pass
    assert (await serving.get("v1/operations"))[0] == 200


@pytest.mark.parametrize("left", ["nothing", "a dead one"])
async def test_a_socket_that_somebody_removes_is_made_anew(tmp_path, left):
    made = Serving(tmp_path / "c.sock")
    looked = asyncio.Event()

    class Looking(SetClock):
        async def sleep_until(self, monotonic_s):
            if looked.is_set():
                await asyncio.Event().wait()
            looked.set()

    async with Control(made.daemon, made.path) as control:
        made.path.unlink()
        if left == "a dead one":
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(made.path))
        made.daemon.clock = Looking()
        watching = asyncio.ensure_future(control.watch())
        await until_true(lambda: made.path.exists() and control._bound.is_in_place)
        assert (await made.post("pause", PAUSE))[0] == 200
        assert "was removed or replaced; it is being made again" in made.bench.log.texts("site_silent")[0]
        watching.cancel()
    assert not made.path.exists()
    await made.bench.journal.close()


async def test_a_socket_whose_folder_is_removed_is_made_anew_once_that_is_there(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    made, looks = Serving(folder / "c.sock"), []

    class Looking(SetClock):
        async def sleep_until(self, monotonic_s):
            looks.append(len(made.bench.log.texts("site_silent")))
            if len(looks) == 4:
                folder.mkdir()
            if len(looks) == 6:
                await asyncio.Event().wait()

    async with Control(made.daemon, made.path) as control:
        shutil.rmtree(folder)
        made.daemon.clock = Looking()
        watching = asyncio.ensure_future(control.watch())
        await until_true(lambda: len(looks) == 6)
        assert made.path.is_socket()
        # Once for as long as it is gone, and once when it is made again.
        assert looks == [0, 1, 1, 1, 2, 2]
        watching.cancel()
    await made.bench.journal.close()


async def until_true(found):
    async with asyncio.timeout(300):
        while not found():
            await asyncio.to_thread(select.select, [], [], [], 0.01)


async def test_the_socket_of_another_daemon_in_its_place_is_not_taken(tmp_path):
    made = Serving(tmp_path / "c.sock")
    made.daemon.clock = made.bench.clock = Hasty()
    async with Control(made.daemon, made.path) as control:
        made.path.unlink()
        async with Control(made.daemon, made.path):
            with pytest.raises(DaemonError, match="another daemon listens on the control socket"):
                await control.watch()
            assert (await made.get("v1/operations"))[0] == 200
    await made.bench.journal.close()


class Hasty(SetClock):
    async def sleep_until(self, monotonic_s):
        pass


async def test_at_the_end_the_socket_is_gone(tmp_path):
    made = Serving(tmp_path / "c.sock")
    async with Control(made.daemon, made.path):
        assert made.path.is_socket()
    assert not made.path.exists()
    await made.bench.journal.close()
