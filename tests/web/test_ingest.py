"""Pushing over HTTP, on a real site: who may push, what is read, what is refused, and how refusals are reported."""

import asyncio
import gzip
import json
import math
import os
import zlib
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import cramjam
import pytest

from autoscaler.core.types import Signal
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.waking import Cause
from autoscaler.errors import ConfigError
from autoscaler.ports.pushing import MOST_SAMPLES, Intake, SeriesRule
from autoscaler.sources import remote_write
from autoscaler.sources.push import PushedSamples, PushLimits
from autoscaler.web.ingest import MOST_AT_ONCE, PATH, Ingest, IngestLimits
from autoscaler.web.ingest_token import PushTokens
from autoscaler.web.site import Site
from tests.daemon.builders import ORIGIN_S, TICK_0, Bench, policy
from tests.sources.doubles import ManualClock

TOKEN = "0123456789abcdef0123456789abcdef"
TOTAL = {"kind": "total", "source": "push", "trace": "off"}


def sample(value=250.0, at_s=ORIGIN_S, fleet="web", **more):
    return {"fleet": fleet, "value": value, "timestamp": at_s, **more}


class Pushing:
    """A daemon of one fleet on a site that takes samples, and a client with the right token."""

    def __init__(self, folder, limits, kept, push):
        self.clock = ManualClock(ORIGIN_S)
        self.bench = Bench(vms=6, clock=self.clock)
        self.pushed = PushedSamples(self.clock, kept)
        rule = SeriesRule("work", (("job", "lb"),))
        self.source = self.pushed.source(Intake("web", Signal.TOTAL, 30.0, series=rule))
        self.bench.add(policy(signal={**TOTAL, **({"push": push} if push else {})}), self.source)
        self.bench.add(policy("api"), 100.0)
        self.daemon = Daemon(
            self.clock,
            self.bench.setups,
            self.bench.journal,
            self.bench.telemetry,
            self.bench.settings,
        )
        self.file = folder / "push-tokens"
        self.write(TOKEN)
        self.ingest = Ingest(
            self.daemon,
            self.pushed,
            PushTokens(self.file, self.clock.now),
            remote_write.RemoteWrite(),
            limits,
        )

    def write(self, text):
        self.file.write_text(f"{text}\n")
        self.file.chmod(0o640)
        # A file that is written twice within a clock's grain looks the same.
        os.utime(self.file, ns=(0, hash(text) % 10**15))

    async def post(self, body, *, token=TOKEN, kind="application/json", **headers):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {"Content-Type": kind, **headers}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        async with self.session.post(f"{self.site.url}{PATH}", data=body, headers=sent) as answer:
            text = await answer.text()
            self.headers = answer.headers
            return answer.status, json.loads(text) if text else None

    async def remote_write(self, *series, **headers):
        return await self.post(
            written(*series), kind=remote_write.CONTENT_TYPE, **{"Content-Encoding": "snappy", **headers}
        )

    def counted(self, metric, **labels):
        return self.bench.telemetry.registry.get_sample_value(f"autoscaler_{metric}_total", labels)

    async def status(self):
        async with self.session.get(f"{self.site.url}/api/v1/status") as answer:
            return (await answer.json())["push"]


@pytest.fixture(name="pushing")
def _pushing(tmp_path):
    @asynccontextmanager
    async def opened(limits=None, kept=None, push=None):
        made = Pushing(tmp_path, limits, kept, push)
        async with (
            Site(made.daemon, "127.0.0.1", 0, made.ingest) as made.site,
            aiohttp.ClientSession() as made.session,
        ):
            yield made
        await made.bench.journal.close()

    return opened


def written(*series):
    """A remote write body of (labels, [(value, seconds)])."""
    request = remote_write.libraries()[2]()
    for labels, samples in series:
        one = request.timeseries.add()
        for name, value in labels.items():
            one.labels.add(name=name, value=value)
        for value, at_s in samples:
            one.samples.add(value=value, timestamp=round(at_s * 1000))
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


async def test_a_pushed_burst_asks_for_an_early_turn_which_starts_vms(pushing):
    async with pushing() as p:
        await p.daemon.tick(TICK_0)
        assert await p.post([sample(0.0)]) == (200, {"taken": 1})
        assert p.daemon.waking.take() is None
        assert await p.post([sample(250.0, ORIGIN_S + 1, id="burst-1")]) == (200, {"taken": 1})
        early = p.daemon.waking.take()
        assert (early.fleets, early.cause) == ({"web"}, Cause.PUSH)
        record = await p.daemon.tick(TICK_0, early)
        assert [(row.fleet, row.start) for row in record.fleets] == [("web", 3)]
        # The same burst again is known already, and what was ordered counts.
        assert await p.post([sample(250.0, ORIGIN_S + 1, id="burst-1")]) == (200, {"duplicate": 1})
        assert await p.post([sample(280.0, ORIGIN_S + 2)]) == (200, {"taken": 1})
        assert p.daemon.waking.take() is None
        assert p.counted("push_samples", result="taken") == 3
        assert p.counted("push_samples", result="duplicate") == 1
        status = await p.status()
        assert (status["samples"], status["refused"]) == ({"taken": 3, "duplicate": 1}, [])


@pytest.mark.parametrize(("wake", "woken"), [("any", True), ("never", False)])
async def test_the_policy_says_what_wakes(pushing, wake, woken):
    async with pushing(push={"wake": wake}) as p:
        await p.daemon.tick(TICK_0)
        await p.post([sample(0.0 if wake == "any" else 1e6)])
        assert (p.daemon.waking.take() is not None) is woken


async def test_times_may_be_written_as_text(pushing):
    async with pushing() as p:
        at = datetime.fromtimestamp(ORIGIN_S - 3, UTC).isoformat()
        assert await p.post([sample(5.0, at)]) == (200, {"taken": 1})
        assert (await p.source.read([])).observed_at_s.tolist() == [ORIGIN_S - 3]


MALFORMED = {
    b"": "body: Invalid JSON",
    b"[{": "body: Invalid JSON",
    b'{"fleet": "web"}': "body: Input should be a valid array",
    b'[{"fleet": "web", "value": 1, "timestamp": 1}, {"fleet": "web", "value": "x", "timestamp": 1}]': "[1].value cannot be read; write a number, without quotes;",
    b'[{"fleet": "web", "timestamp": 1}]': "[0].value is missing; write a number, without quotes;",
    b'[{"fleet": "web", "value": 1, "timestamp": 1, "vn": "i-1"}]': "[0].vn is not a field of a sample; there are fleet, vm, value, timestamp, id;",
    b'[{"fleet": "", "value": 1, "timestamp": 1}]': "[0].fleet cannot be read; write the name of the fleet, as text;",
    b'[{"fleet": "web", "value": 1, "timestamp": "2026-01-01T00:00:00"}]': "[0].timestamp cannot be read; write epoch seconds as a number, or ISO 8601 with an",
    b"[" * 100_000: "body: Invalid JSON",
    b"[" + b"0," * 300_000 + b"0]": "[0]: Input should be",
}


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_body_is_refused_as_a_whole_with_its_place(pushing, body):
    async with pushing() as p:
        status, answer = await p.post(body)
        assert status == 400
        assert answer["error"].startswith(MALFORMED[body])
        assert len(answer["error"]) < 400
        (told,) = (await p.status())["refused"]
        assert (told["reason"], told["count"]) == ("malformed", 1)
        assert (await p.source.read([])).vm_ids == ()


async def test_one_bad_sample_is_told_and_the_others_are_taken(pushing):
    async with pushing() as p:
        body = b'[{"fleet": "web", "value": NaN, "timestamp": %d}, {"fleet": "web", "value": 7, "timestamp": %d}]'
        status, answer = await p.post(body % (ORIGIN_S, ORIGIN_S))
        assert (status, answer["taken"], answer["not_a_number"]) == (400, 1, 1)
        assert answer["error"] == "1 sample was refused; the others were accepted"
        assert [(each["at"], each["reason"]) for each in answer["refused"]] == [(0, "not_a_number")]
        assert (await p.source.read([])).values.tolist() == [7.0]
        status, answer = await p.post(b'[{"fleet": "web", "value": NaN, "timestamp": %d}]' % ORIGIN_S)
        assert (status, answer["error"]) == (400, "1 sample was refused")


async def test_every_kind_of_bad_input_is_named_in_the_status_with_what_to_do(pushing):
    async with pushing() as p:
        await p.post([sample(fleet="wbe"), sample(fleet="api"), sample(math.inf), sample(-1.0)])
        await p.post([sample(at_s=ORIGIN_S - 60), sample(at_s=ORIGIN_S * 1000), sample(vm="i-1")])
        await p.post([sample()], token="")
        await p.post([sample()], kind="text/plain")
        told = {each["reason"]: each["text"] for each in (await p.status())["refused"]}
        assert set(told) == {
            "unknown_fleet", "not_on_push", "not_a_number", "out_of_range", "too_old", "in_the_future", "vm_not_asked",
            "unauthorised", "unsupported",
        }  # fmt: skip
        assert all(";" in text for text in told.values())
        assert "write `source: push` in its policy" in told["not_on_push"]
        logged = p.bench.log.texts("push_refused")
        assert len(logged) == len(told)
        assert TOKEN not in json.dumps([told, logged])
        # The same again is counted, and not logged every time.
        await p.post([sample(fleet="wbe")])
        assert len(p.bench.log.texts("push_refused")) == len(told)
        assert p.counted("push_samples", result="unknown_fleet") == 2


async def test_a_token_is_needed_and_may_be_replaced_while_running(pushing):
    async with pushing() as p:
        for wrong in ("", "wrong", TOKEN[:-1], TOKEN + "0", "\xff" * 32):
            status, answer = await p.post([sample()], token=wrong)
            assert (status, p.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert TOKEN not in answer["error"]
        new = "f" * 32
        p.write(f"# both hold for a while\n{TOKEN}\n\n{new} fleets=api")
        p.clock.at_s += 2
        assert (await p.post([sample()]))[0] == 200
        assert (await p.post([sample(at_s=ORIGIN_S + 1)], token=new))[0] == 403
        p.write(f"{new} expires=2000-01-01T00:00:00Z")
        p.clock.at_s += 2
        assert (await p.post([sample()]))[0] == 401
        status, answer = await p.post([sample()], token=new)
        assert (status, "has expired; write a new one" in answer["error"]) == (401, True)
        assert p.counted("push_requests_refused", reason="expired") == 1
        p.file.unlink()
        p.clock.at_s += 2
        status, answer = await p.post([sample()], token=new)
        assert (status, p.headers["Retry-After"]) == (503, "30")
        assert "cannot be read: No such file" in answer["error"]
        assert "cannot be read" in (await p.status())["token_file_problem"]


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o600, "holds no token"),
        ("short", 0o600, ":1: a token has at least 16 characters"),
        (TOKEN, 0o644, "can be read by everybody"),
        (f"{TOKEN} expires=tomorrow", 0o600, "is not a time with its offset"),
        (f"# a\n{TOKEN} secretpart", 0o600, ":2: word 2 is not an option"),
        ("x" * 70_000, 0o600, "is larger than 65536 bytes"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_says_why_and_tells_no_token(tmp_path, text, mode, said):
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ConfigError) as error:
        PushTokens(file, lambda: 0.0)
    assert said in str(error.value)
    assert not text or text.split()[-1] not in str(error.value).replace("expires=tomorrow", "")


async def test_bodies_are_bounded_as_they_are_and_unpacked(pushing):
    async with pushing(IngestLimits(body_bytes=10_000)) as p:
        large = [sample(id="x" * 90) for _ in range(100)]
        assert (await p.post(large))[0] == 413

        async def in_parts():
            for _ in range(100):
                yield b" " * 1000

        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        async with p.session.post(f"{p.site.url}{PATH}", data=in_parts(), headers=headers) as answer:
            assert answer.status == 413
        bomb = gzip.compress(b" " * 5_000_000)
        assert len(bomb) < 10_000
        assert (await p.post(bomb, **{"Content-Encoding": "gzip"}))[0] == 413
        packed = gzip.compress(json.dumps([sample()]).encode())
        assert (await p.post(packed, **{"Content-Encoding": "gzip"}))[0] == 200
        assert (await p.post(b"no gzip", **{"Content-Encoding": "gzip"}))[0] == 400
        assert (await p.post(packed[:-9], **{"Content-Encoding": "gzip"}))[0] == 400
        deflated = zlib.compress(json.dumps([sample(251.0)]).encode())
        assert (await p.post(deflated, **{"Content-Encoding": "deflate"}))[0] == 200
        snappy_bomb = bytes(cramjam.snappy.compress_raw(bytes(100_000)))
        assert len(snappy_bomb) < 10_000
        status, answer = await p.post(
            snappy_bomb, kind=remote_write.CONTENT_TYPE, **{"Content-Encoding": "snappy"}
        )
        assert (status, answer["error"]) == (
            413, "the body unpacks to 100,000 bytes, and 40,000 are taken; lower max_samples_per_send"
        )  # fmt: skip
        assert p.counted("push_requests_refused", reason="oversized") == 4


async def test_a_request_holds_only_so_many_samples(pushing):
    async with pushing() as p:
        many = [{"fleet": "web", "value": 1, "timestamp": ORIGIN_S}] * (MOST_SAMPLES + 1)
        status, answer = await p.post(many)
        assert (status, "more than 5,000 samples" in answer["error"]) == (413, True)
        assert (await p.post(many[1:]))[0] == 200
        status, answer = await p.remote_write(({"__name__": "other"}, [(1.0, ORIGIN_S)] * 5001))
        assert (status, "holds 5,001 samples" in answer["error"]) == (413, True)
        assert (await p.remote_write(*[({"__name__": "other"}, [])] * 5001))[0] == 413


async def test_too_many_samples_a_second_are_held_back_and_the_rest_goes_on(pushing):
    async with pushing(IngestLimits(samples_per_s=10.0)) as p:
        burst = [sample(number, ORIGIN_S + number / 100) for number in range(45)]
        assert (await p.post(burst))[0] == 200
        status, answer = await p.post(burst[:10])
        assert (status, p.headers["Retry-After"]) == (429, "1")
        assert "more than 10 samples a second" in answer["error"]
        p.clock.at_s += 1.0
        assert (await p.post(burst[:10]))[0] == 200
        # More than ever fits at once is taken from a full bucket, and is paid for later.
        p.clock.at_s += 10.0
        assert (await p.post(burst * 2))[0] == 200
        assert (await p.post(burst[:1]))[0] == 429
        assert p.counted("push_requests_refused", reason="too_fast") == 2


async def test_only_so_many_requests_are_under_way(pushing):
    async with pushing() as p:
        host, port = p.site.url.removeprefix("http://").split(":")
        writers = []
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        for _ in range(MOST_AT_ONCE):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"{head}Content-Length: 100\r\n\r\n[".encode())
            writers.append(writer)
        while p.ingest._under_way < MOST_AT_ONCE:
            await p.status()
        assert (await p.post([sample()]))[0] == 429
        assert p.headers["Retry-After"] == "1"
        for writer in writers:
            writer.close()
        while p.ingest._under_way:
            await p.status()
        assert (await p.post([sample()]))[0] == 200


async def test_samples_for_which_there_is_no_room_are_refused_and_not_asked_for_again(pushing):
    async with pushing(kept=PushLimits(vms=1)) as p:
        # A status that means "again" would repeat the accepted sample, and hold up Prometheus' whole queue.
        both = [sample(), sample(fleet="queue")]
        p.pushed.source(Intake("queue", Signal.TOTAL, 30.0, series=SeriesRule("work", (("job", "lb"),))))
        status, answer = await p.post(both)
        assert (status, answer["taken"], answer["full"]) == (400, 1, 1)
        assert (answer["refused"][0]["reason"], "Retry-After" in p.headers) == ("full", False)
        assert "raise push_max_vms" in answer["refused"][0]["text"]
        assert (await p.post(both[1:]))[0] == 400
        series = [(labels(fleet=name), [(5.0, ORIGIN_S + 1)]) for name in ("web", "queue")]
        status, answer = await p.remote_write(*series)
        assert (status, answer["taken"], answer["full"]) == (400, 1, 1)
        assert "Retry-After" not in p.headers


# ── remote write ────────────────────────────────────────────────────────────────────────────────────────


def labels(**more):
    return {"__name__": "work", "job": "lb", "fleet": "web", **more}


async def test_remote_write_takes_the_series_of_a_policy_and_passes_the_others_over(pushing):
    async with pushing() as p:
        found = await p.remote_write(
            (labels(), [(3.0, ORIGIN_S - 2), (4.0, ORIGIN_S - 1)]),
            ({"__name__": "up", "fleet": "web"}, [(1.0, ORIGIN_S)]),
            (labels(job="other"), [(9.0, ORIGIN_S)]),
            ({"__name__": "work", "job": "lb"}, [(9.0, ORIGIN_S)]),
        )
        assert found == (204, None)
        assert (await p.source.read([])).values.tolist() == [4.0]
        assert p.counted("push_samples", result="unasked") == 3
        assert p.counted("push_samples", result="taken") == 2


async def test_remote_write_refuses_with_400_and_takes_the_rest(pushing):
    async with pushing() as p:
        status, answer = await p.remote_write(
            (labels(fleet="wbe"), [(1.0, ORIGIN_S)]),
            (labels(), [(math.nan, ORIGIN_S), (5.0, ORIGIN_S)]),
        )
        assert (status, answer["taken"], answer["unknown_fleet"], answer["not_a_number"]) == (400, 1, 1, 1)
        assert (await p.source.read([])).values.tolist() == [5.0]


async def test_what_is_no_remote_write_is_named(pushing):
    async with pushing() as p:
        kind, snappy = remote_write.CONTENT_TYPE, {"Content-Encoding": "snappy"}
        assert (await p.post(b"\xff" * 40, kind=kind, **snappy))[0] == 400
        garbage = bytes(cramjam.snappy.compress_raw(b"\x0a\xff\xff"))
        status, answer = await p.post(garbage, kind=kind, **snappy)
        assert (status, "is not a WriteRequest" in answer["error"]) == (400, True)
        assert (await p.post(written(), kind=kind))[0] == 415
        second = f"{kind};proto=io.prometheus.write.v2.Request"
        assert (await p.post(written(), kind=second, **snappy))[0] == 415
        long = (labels(vm="x" * 5000), [(1.0, ORIGIN_S)])
        assert (await p.remote_write(long))[0] == 400


async def test_without_a_file_of_tokens_nothing_can_be_pushed(pushing):
    async with pushing() as p, Site(p.daemon, "127.0.0.1", 0) as site:
        async with p.session.post(f"{site.url}{PATH}", data=b"[]") as answer:
            assert answer.status == 404
        async with p.session.get(f"{site.url}/api/v1/status") as answer:
            assert "push" not in await answer.json()
