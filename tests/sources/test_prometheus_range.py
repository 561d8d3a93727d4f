"""Importing history from Prometheus: against a scripted HTTP endpoint and the real program."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess

import numpy as np
import pytest
from aiohttp import ClientSession, web

from autoscaler.clock import SystemClock
from autoscaler.errors import SourceError, TraceError
from autoscaler.sources.prometheus_range import POINTS_AT_ONCE, Access, Describes, RangeQuery, read_range
from autoscaler.traces.trace import TraceKind
from tests.real import require_real

START_S = 1772323200.0  # 2026-03-01T00:00:00Z


class Endpoint:
    """An endpoint for query_range; `value_at` gives the value at a time, or None."""

    def __init__(self, value_at):
        self.value_at = value_at
        self.asked, self.tokens = [], []
        self.failures = []  # answers to give instead, in order
        self.labels = [{}]
        self.warnings = []

    async def answer(self, request):
        form = await request.post()
        self.asked.append({name: form[name] for name in form})
        self.tokens.append(request.headers.get("Authorization"))
        if self.failures:
            return self.failures.pop(0)
        start, end, step = (float(form[name]) for name in ("start", "end", "step"))
        count = int((end - start) / step) + 1
        if count > 11_000:
            return web.json_response(
                {"status": "error", "errorType": "bad_data", "error": "exceeded maximum resolution"},
                status=400,
            )
        moments = [start + at * step for at in range(count)]
        values = [[at, self.value_at(at)] for at in moments if self.value_at(at) is not None]
        result = [{"metric": labels, "values": values} for labels in self.labels if values]
        return web.json_response(
            {
                "status": "success",
                "data": {"resultType": "matrix", "result": result},
                "warnings": self.warnings,
            }
        )


@pytest.fixture(name="serve")
async def _serve():
    runners = []

    async def serve(endpoint, context=None):
        app = web.Application()
        app.router.add_post("/api/v1/query_range", endpoint.answer)
        app.router.add_post("/prom/api/v1/query_range", endpoint.answer)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        return f"{'https' if context else 'http'}://127.0.0.1:{port}"

    yield serve
    for runner in runners:
        await runner.cleanup()


def query(url, text="load", *, hours=1.0, step_s=60.0, kind=TraceKind.GAUGE, describes=None, start_s=START_S):
    return RangeQuery(url, text, start_s, start_s + hours * 3600, step_s, kind, describes)


async def test_a_level_is_stamped_where_it_was_read(serve):
    url = await serve(Endpoint(lambda at: f"{(at - START_S) / 60:.0f}"))
    trace, notes = await read_range(query(url), Access(), SystemClock())
    assert trace.timestamps.tolist() == [START_S + 60 * at for at in range(60)]
    assert trace.values.tolist() == list(range(60))
    assert any("up to 5 minutes" in text for text in notes)


@pytest.mark.parametrize("text", ["increase(requests_total[1m])", "sum(increase(requests_total[1m]))"])
async def test_counts_are_stamped_at_the_beginning_of_what_they_count(serve, text):
    endpoint = Endpoint(lambda at: f"{(at - START_S) / 60:.0f}")
    trace, notes = await read_range(
        query(await serve(endpoint), text, kind=TraceKind.COUNT), Access(), SystemClock()
    )
    # The value at 00:01 describes the time from 00:00 to 00:01.
    assert (trace.start_s, trace.values[0]) == (START_S, 1.0)
    assert (trace.end_s, trace.values[-1]) == (START_S + 3600, 60.0)
    assert any("moved back" in text for text in notes)


@pytest.mark.parametrize(
    ("text", "describes", "first"),
    [("rate(x[5m])", None, 1.0), ("rate(x[5m])", Describes.AFTER, 0.0), ("load", Describes.BEFORE, 1.0)],
)
async def test_which_step_a_value_describes(serve, text, describes, first):
    url = await serve(Endpoint(lambda at: f"{(at - START_S) / 60:.0f}"))
    trace, notes = await read_range(query(url, text, describes=describes), Access(), SystemClock())
    assert (trace.start_s, trace.values[0]) == (START_S, first)
    assert any("over 300 s, which flattens" in told for told in notes) == ("[5m]" in text)


async def test_a_long_range_is_asked_for_in_parts_without_seams(serve):
    endpoint = Endpoint(lambda at: f"{at - START_S}")
    told = []
    asked = query(await serve(endpoint), hours=24 * 20, step_s=60.0)
    trace, _ = await read_range(asked, Access(), SystemClock(), told.append)
    assert len(endpoint.asked) == -(-28_800 // POINTS_AT_ONCE)
    np.testing.assert_array_equal(trace.timestamps, START_S + 60.0 * np.arange(28_800))
    np.testing.assert_array_equal(trace.values, trace.timestamps - START_S)
    assert told == sorted(told)
    assert told[-1] == 1.0


async def test_gaps_and_what_is_no_number_stay_unknown(serve):
    def value_at(at):
        minute = (at - START_S) / 60
        return None if 10 <= minute < 20 else "NaN" if minute == 30 else "+Inf" if minute == 31 else "1"

    trace, notes = await read_range(query(await serve(Endpoint(value_at))), Access(), SystemClock())
    assert (len(trace.values), trace.missing) == (48, 12)
    assert any(text.startswith("2 values were no numbers") for text in notes)


async def test_a_start_off_the_grid_begins_at_the_next_step(serve):
    trace, _ = await read_range(
        query(await serve(Endpoint(lambda _: "1")), start_s=START_S + 7), Access(), SystemClock()
    )
    assert trace.start_s == START_S + 60


async def test_warnings_and_the_token_pass_through(serve, tmp_path):
    endpoint = Endpoint(lambda _: "1")
    endpoint.warnings = ["exceeded some limit"]
    (tmp_path / "token").write_text("secret\n")
    _, notes = await read_range(
        query(await serve(endpoint) + "/prom/"), Access(tmp_path / "token"), SystemClock()
    )
    assert endpoint.tokens == ["Bearer secret"]
    assert any("exceeded some limit" in text for text in notes)


async def test_several_series_are_an_error_that_says_how_to_add_them(serve):
    endpoint = Endpoint(lambda _: "1")
    endpoint.labels = [{"__name__": "load", "instance": f"10.0.0.{at}"} for at in range(5)]
    with pytest.raises(
        TraceError, match=r'5 series \(load\{instance="10\.0\.0\.0"\}, .* and 2 more\).*sum\(load\)'
    ):
        await read_range(query(await serve(endpoint)), Access(), SystemClock())


async def test_a_series_that_changes_its_labels_between_parts_is_two(serve):
    endpoint = Endpoint(lambda _: "1")
    url = await serve(endpoint)
    answer = endpoint.answer

    async def changing(request):
        endpoint.labels = [{"instance": str(len(endpoint.asked))}]
        return await answer(request)

    endpoint.answer = changing
    url = await serve(endpoint)
    with pytest.raises(TraceError, match="2 series"):
        await read_range(query(url, hours=24 * 20), Access(), SystemClock())


def refusal(status, **body):
    return web.json_response({"status": "error", **body}, status=status)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            refusal(400, errorType="bad_data", error="parse error at char 3"),
            "bad_data: parse error at char 3",
        ),
        (refusal(422, errorType="execution", error="too many samples"), "too many samples"),
        (refusal(422, errorType="execution", error="x" * 1000), "execution: x{300}$"),
        (web.Response(body=b"[" * 100_000, status=200), "not that of a Prometheus"),
        (
            web.json_response(
                {"status": "success", "data": {"result": [{"metric": {}, "values": [[10**400, "5"]]}]}}
            ),
            "no series of numbers",
        ),
        (web.Response(text="<html>", status=200), "not that of a Prometheus"),
        (web.Response(text="no", status=401), r"denies access \(401\); is `--token-file` right"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), "not that of a Prometheus"),
        (
            web.json_response({"status": "success", "data": {"result": [{"metric": {}}]}}),
            "no series of numbers",
        ),
        (
            web.json_response({"status": "success", "data": {"result": []}}),
            "gives 0 values .* does the metric exist",
        ),
    ],
)
async def test_answers_that_are_no_use(serve, failure, message):
    endpoint = Endpoint(lambda _: "1")
    endpoint.failures = [failure]
    with pytest.raises((SourceError, TraceError), match=message):
        await read_range(query(await serve(endpoint)), Access(), SystemClock())
    assert len(endpoint.asked) == 1


class Hurried:
    """A clock on which waiting takes no time."""

    def __init__(self):
        self.waited = []

    def now(self):
        return START_S + sum(self.waited)

    def monotonic(self):
        return sum(self.waited)

    async def sleep_until(self, monotonic_s):
        self.waited.append(monotonic_s - self.monotonic())


async def test_a_busy_prometheus_is_asked_again_a_few_times(serve):
    endpoint = Endpoint(lambda _: "1")
    endpoint.failures = [refusal(503, errorType="timeout", error="busy"), web.Response(status=502)]
    clock = Hurried()
    trace, _ = await read_range(query(await serve(endpoint)), Access(), clock)
    assert (len(trace.values), len(endpoint.asked), clock.waited) == (60, 3, [2.0, 4.0])
    endpoint.failures = [refusal(503, errorType="timeout", error="busy") for _ in range(3)]
    with pytest.raises(SourceError, match="timeout: busy"):
        await read_range(query(await serve(endpoint)), Access(), clock)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "localhost:9090"}, "not an address"),
        ({"hours": 0.0}, "2 to .* are possible"),
        ({"hours": 1e9}, "2 to .* are possible"),
        ({"text": "increase(x[5m])", "kind": TraceKind.COUNT}, r"counts over \[5m\] .* counted 5 times"),
    ],
)
async def test_what_is_not_even_asked(change, message):
    with pytest.raises((SourceError, TraceError), match=message):
        await read_range(query(**{"url": "http://127.0.0.1:9", **change}), Access(), Hurried())


async def test_negative_values_are_no_demand(serve):
    with pytest.raises(TraceError, match="at 2026-03-01T00:00:00Z: value -1 is negative"):
        await read_range(query(await serve(Endpoint(lambda _: "-1"))), Access(), SystemClock())


@pytest.mark.parametrize("name", ["token_file", "ca_file"])
async def test_files_that_are_not_there(name, tmp_path):
    access = Access(**{name: tmp_path / "none"})
    with pytest.raises(SourceError, match=r"file .*none cannot be"):
        await read_range(query("http://127.0.0.1:9"), access, Hurried())


async def test_nobody_there_is_a_sentence(unused_tcp_port):
    with pytest.raises(SourceError, match=rf"http://127\.0\.0\.1:{unused_tcp_port}: Cannot connect"):
        await read_range(query(f"http://127.0.0.1:{unused_tcp_port}"), Access(), Hurried())


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory):
    command = shutil.which("openssl")
    require_real("openssl", command is not None)
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [command, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out",
         folder / "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return folder


async def test_tls_is_checked_against_the_certificates_given(serve, certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    url = await serve(Endpoint(lambda _: "1"), context)
    trace, _ = await read_range(query(url), Access(ca_file=certificate / "cert.pem"), SystemClock())
    assert len(trace.values) == 60
    with pytest.raises(SourceError, match=r"(?i)certificate"):
        await read_range(query(url), Access(), clock := Hurried())
    assert not clock.waited, "no certificate gets better by waiting"


# ── The real one ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(name="prometheus")
async def _prometheus(tmp_path, unused_tcp_port):
    """Run a Prometheus with a day of two counters and a gauge, with an outage; gives its address and the day."""
    command, tool = shutil.which("prometheus"), shutil.which("promtool")
    require_real("prometheus", command is not None and tool is not None)
    clock = SystemClock()
    begin = (clock.now() // 86_400 - 2) * 86_400
    lines = ["# TYPE requests counter"]
    for vm, per_minute in (("a", 60), ("b", 120)):
        lines += [
            f'requests_total{{vm="{vm}"}} {per_minute * minute} {begin + 60 * minute:.0f}'
            for minute in range(1441)
            if not 600 <= minute < 630
        ]
    lines += [
        "# TYPE queue gauge",
        *(f"queue {minute % 60} {begin + 60 * minute:.0f}" for minute in range(1441)),
    ]
    (tmp_path / "om.txt").write_text("\n".join([*lines, "# EOF", ""]))
    (tmp_path / "prometheus.yml").write_text("global: {scrape_interval: 1h}\n")
    await asyncio.to_thread(
        subprocess.run,
        [tool, "tsdb", "create-blocks-from", "openmetrics", tmp_path / "om.txt", tmp_path / "data"],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    url = f"http://127.0.0.1:{unused_tcp_port}"
    process = await asyncio.create_subprocess_exec(
        command, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{unused_tcp_port}", "--storage.tsdb.retention.time=30d",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with ClientSession(trust_env=False) as session:
            for _ in range(1000):
                try:
                    async with session.get(f"{url}/-/ready") as answer:
                        if answer.status == 200:
                            break
                except OSError:
                    pass
                await clock.sleep_until(clock.monotonic() + 0.1)
            else:
                pytest.fail("prometheus did not answer within 100 s")
        yield url, begin
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 300)


@pytest.mark.real
async def test_a_day_out_of_a_real_prometheus(prometheus):
    url, begin = prometheus

    async def ask(text, kind, step_s=60.0, seconds=86_400.0):
        asked = RangeQuery(url, text, begin, begin + seconds, step_s, kind)
        trace, _ = await read_range(asked, Access(), SystemClock())
        return trace

    rate = await ask("sum(rate(requests_total[5m]))", TraceKind.GAUGE)
    assert rate.interval_s == 60.0
    known = rate.values[np.abs(rate.timestamps - (begin + 615 * 60)) > 20 * 60]
    np.testing.assert_allclose(known[5:], 3.0, rtol=1e-9)
    assert rate.missing > 20, "the outage stays a gap"

    counts = await ask("sum(increase(requests_total[10m]))", TraceKind.COUNT, 600.0)
    usual = counts.values[np.abs(counts.timestamps - (begin + 615 * 60)) > 3600]
    np.testing.assert_allclose(usual[2:], 1800.0, rtol=1e-6)

    queue = await ask("queue", TraceKind.GAUGE, seconds=7200.0)
    np.testing.assert_array_equal(queue.values, np.arange(120) % 60)

    with pytest.raises(TraceError, match=r"2 series .*sum\(requests_total\)"):
        await ask("requests_total", TraceKind.GAUGE)
    with pytest.raises(SourceError, match="bad_data"):
        await ask("sum(", TraceKind.GAUGE)
    second = await ask("queue", TraceKind.GAUGE, step_s=1.0)
    assert len(second.values) == 86_400, "more than the 11,000 points of one answer"
