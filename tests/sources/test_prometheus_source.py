"""Prometheus as a live source: joins, totals, sharing, times, and every way in which an answer can fail."""

from __future__ import annotations

import asyncio
import math
import tracemalloc

import numpy as np
import pytest

from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports import Vm, VmState
from autoscaler.sources.prometheus import Join, JoinBy, PrometheusPool, PrometheusSource
from autoscaler.sources.prometheus_access import Address
from autoscaler.sources.prometheus_history import Past
from tests.sources.doubles import vm
from tests.sources.prometheus_double import PrometheusOverHttp

RATE = "rate(requests_total[1m])"
VMS = [vm("i-1", "10.0.0.1"), vm("i-2", "10.0.0.2"), vm("i-3", "fd00::3")]


@pytest.fixture(name="web")
async def _web(clock):
    async with PrometheusOverHttp(clock) as web:
        yield web


@pytest.fixture(name="make")
async def _make(web, clock):
    made, pool = [], PrometheusPool(clock)

    def make(query=RATE, signal=Signal.THROUGHPUT, timeout_s=2.0, url=None, join=None, **more):
        address = Address(url or web.url, timeout_s=timeout_s)
        made.append(PrometheusSource(pool.at(address), Past(query, signal, **more), clock, join=join))
        return made[-1]

    yield make
    for source in made:
        await source.close()


def series(**by_instance):
    return [({"instance": name}, value) for name, value in by_instance.items()]


def on(*pairs):
    return [({"instance": name}, value) for name, value in pairs]


async def failing(source, vms=VMS):
    with pytest.raises(SourceError) as caught:
        await source.read(vms)
    return str(caught.value)


# ── Joining ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_series_join_by_address_without_port_in_the_order_of_the_vms(web, clock, make):
    web.vectors[RATE] = on(("10.0.0.9:9100", 9), ("[fd00::3]:9100", 3), ("10.0.0.1:9100", 1), ("10.0.0.2", 0))
    found = await make(lag_s=7.0).read(VMS)
    assert (found.vm_ids, found.values.tolist(), found.error) == (("i-1", "i-2", "i-3"), [1.0, 0.0, 3.0], "")
    assert found.observed_at_s.tolist() == [clock.at_s - 7.0] * 3


async def test_series_join_by_id_and_by_name(web, make):
    web.vectors[RATE] = [({"vm": "i-2"}, 2), ({"vm": "first"}, 1)]
    named = Vm("i-1", "web", VmState.RUNNING, "m", "z", None, 0.0, "i", {"Name": "first"})
    by_id = await make(join=Join("vm", JoinBy.ID)).read(VMS)
    assert (by_id.vm_ids, by_id.values.tolist()) == (("i-2",), [2.0])
    by_name = await make(join=Join("vm", JoinBy.NAME)).read([named])
    assert (by_name.vm_ids, by_name.values.tolist()) == (("i-1",), [1.0])


async def test_a_vm_without_series_is_absent_and_told(web, make):
    web.vectors[RATE] = on(("10.0.0.1:9100", 1))
    found = await make().read([*VMS, vm("i-4")])
    assert found.vm_ids == ("i-1",)
    assert found.error == "3 of 4 gave no reading: no series at 10.0.0.2 and 1 more; no address at i-4"


async def test_several_series_of_a_vm_are_an_error_that_shows_two_and_never_a_sum(web, make):
    web.vectors[RATE] = [
        ({"instance": "10.0.0.1:1", "cpu": "0"}, 1),
        ({"instance": "10.0.0.1:1", "cpu": "1"}, 1),
        ({"instance": "10.0.0.1:1", "cpu": "2"}, 1),
        ({"instance": "10.0.0.2:1"}, 5),
    ]
    found = await make().read(VMS[:2])
    assert (found.vm_ids, found.values.tolist()) == (("i-2",), [5.0])
    for part in (
        "3 series of one VM",
        'cpu="0"',
        'cpu="1"',
        "and 1 more",
        "sum by (instance)",
        "at 10.0.0.1",
    ):
        assert part in found.error
    assert "3 series of one VM" in await failing(make(), VMS[:1])


async def test_no_match_shows_both_sides(web, make):
    web.vectors[RATE] = on(("web-1:9100", 1), ("web-2:9100", 1))
    text = await failing(make(), VMS[:2])
    assert "label instance = address" in text
    assert "the series name web-1, web-2" in text
    assert "the VMs are 10.0.0.1, 10.0.0.2" in text
    text = await failing(make(join=Join("node", JoinBy.ID)))
    assert "no series carries the label node" in text
    assert 'instance="web-1:9100"' in text


async def test_no_series_is_no_reading(web, make):
    text = await failing(make())
    assert "no series now: rate(requests_total[1m])" in text


async def test_values_that_are_no_numbers_are_passed_on_as_such(web, make):
    web.vectors[RATE] = on(("10.0.0.1:1", "NaN"), ("10.0.0.2:1", "+Inf"))
    found = await make().read(VMS[:2])
    assert math.isnan(found.values[0])
    assert math.isinf(found.values[1])


async def test_a_percentage_is_pointed_out(web, make):
    web.vectors[RATE] = on(("10.0.0.1:1", 87))
    found = await make(signal=Signal.UTILISATION).read(VMS[:1])
    assert (found.values.tolist(), "divide by 100" in found.error) == ([87.0], True)


# ── Totals ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_total_is_exactly_one_series(web, clock, make):
    source = make(signal=Signal.TOTAL)
    web.vectors[RATE] = [({}, 120)]
    found = await source.read(())
    assert (found.vm_ids, found.values.tolist(), found.error) == (("",), [120.0], "")
    web.vectors[RATE] = [({"zone": "a"}, 1), ({"zone": "b"}, 2)]
    other = make(signal=Signal.TOTAL, select=(("zone", "b"),))
    both = [failing(source, ()), other.read(())]
    clock.at_s += 1.0
    text, found = await asyncio.gather(*both)
    assert found.values.tolist() == [2.0]
    for part in ("2 series", '{zone="a"}', '{zone="b"}', "sum(rate(requests_total[1m]))"):
        assert part in text


async def test_a_selection_without_series_shows_what_there_is(web, make):
    web.vectors[RATE] = [({"service": "api"}, 1)]
    text = await failing(make(signal=Signal.TOTAL, select=(("service", "web"),)), ())
    assert 'none of the 1 series carries {service="web"}' in text
    assert 'there is {service="api"}' in text


async def test_a_sum_without_one_of_its_stores_is_no_reading(web, make):
    """Thanos, and a Prometheus with remote reads, warn of this; without the missing part, demand looks lower."""
    web.vectors[RATE], web.warnings = (
        [({}, 5)],
        ("PromQL info: a hint", "fetch series: store 10.0.0.7 is away"),
    )
    with pytest.raises(
        SourceError, match=r"partial.*less demand; Prometheus warns: fetch series: store 10\.0\.0\.7"
    ):
        await make(signal=Signal.TOTAL).read([])


async def test_vms_that_a_partial_answer_still_shows_are_read(web, make):
    """Scaling out may rely on some VMs, and coverage shows that others are missing."""
    web.vectors[RATE], web.warnings = [({"instance": "10.0.0.1:9100"}, 5)], ("a store is away",)
    found = await make().read([vm("i-1", "10.0.0.1"), vm("i-2", "10.0.0.2")])
    assert found.values.tolist() == [5.0]
    assert "Prometheus warns: a store is away" in found.error


async def test_a_warning_of_prometheus_is_passed_on_with_the_value(web, make):
    web.vectors[RATE], web.warnings = [({}, 5)], ("PromQL warning: mixed histograms",)
    found = await make(signal=Signal.TOTAL).read(())
    assert (found.values.tolist(), found.error) == (
        [5.0],
        "Prometheus warns: PromQL warning: mixed histograms",
    )


# ── Time ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_plain_selector_counts_at_the_time_of_its_own_sample(web, clock, make):
    web.vectors['load{fleet="web"}'] = [({"__name__": "load", "instance": "10.0.0.1:1"}, 4)]
    web.vectors['timestamp(load{fleet="web"})'] = [({"instance": "10.0.0.1:1"}, clock.at_s - 200.0)]
    found = await make('load{fleet="web"}').read(VMS[:1])
    assert found.observed_at_s.tolist() == [clock.at_s - 200.0]


@pytest.mark.parametrize(("off_s", "way"), [(40.0, "ahead of"), (-40.0, "behind")])
async def test_a_clock_that_is_far_off_is_told_and_never_makes_a_reading_from_the_future(
    web, clock, make, off_s, way
):
    web.vectors[RATE], web.at_s = [({}, 5)], clock.at_s + off_s
    found = await make(signal=Signal.TOTAL).read(())
    assert found.observed_at_s.tolist() == [min(clock.at_s, clock.at_s + off_s)]
    assert f"5 s {way} ours" in found.error


# ── Sharing ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_fleets_with_one_query_ask_once_a_tick(web, make):
    web.vectors[RATE] = [({"service": f"s{n}", "instance": f"10.0.{n}.1:1"}, n) for n in range(50)]
    sources = [make(select=(("service", f"s{n}"),)) for n in range(50)]
    found = await asyncio.gather(
        *(source.read([vm("i-1", f"10.0.{n}.1")]) for n, source in enumerate(sources))
    )
    assert [one.values.tolist() for one in found] == [[float(n)] for n in range(50)]
    assert web.queries == [RATE]


async def test_who_gives_up_does_not_take_the_answer_from_the_others(web, make):
    web.vectors[RATE] = [({}, 5)]
    first, second = make(signal=Signal.TOTAL), make(signal=Signal.TOTAL)
    given_up = asyncio.ensure_future(first.read(()))
    waiting = asyncio.ensure_future(second.read(()))
    await _turns(2)
    given_up.cancel()
    await first.close()
    assert (await waiting).values.tolist() == [5.0]
    assert given_up.cancelled()


async def _turns(number):
    loop = asyncio.get_running_loop()
    for _ in range(number):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


async def test_a_hanging_query_is_asked_once_and_others_are_answered(web, make):
    hanging, well = make(timeout_s=1.5), None
    web.mood = "hang"
    reads = [asyncio.ensure_future(hanging.read(VMS)) for _ in range(20)]
    await _turns(50)
    web.mood = ""
    web.vectors["other[1m]"] = [({}, 1)]
    well = make("other[1m]", Signal.TOTAL, timeout_s=1.5)
    assert (await well.read(())).values.tolist() == [1.0]
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert all("no answer within 1.5 s" in str(answer) for answer in answers)
    assert web.queries.count(RATE) == 1


async def test_questions_at_once_are_bounded(web, make):
    for n in range(60):
        web.vectors[f"sum(a{n}[1m])"] = [({}, n)]
    sources = [make(f"sum(a{n}[1m])", Signal.TOTAL, timeout_s=10.0) for n in range(60)]
    found = await asyncio.gather(*(source.read(()) for source in sources))
    assert [one.values[0] for one in found] == list(map(float, range(60)))
    assert web.most_under_way <= 8


# ── What goes wrong ─────────────────────────────────────────────────────────────────────────────────────

TROUBLES = {
    "hang": ("no answer within 0.5 s", "recording rule"),
    "html": ("a web page came", "login"),
    "garbage": ("not that of a Prometheus", "`signal.prometheus.url`"),
    "deep": ("not that of a Prometheus",),
    "huge": ("larger than 8 MiB", "sum by"),
    "bomb": ("larger than 8 MiB",),
    "cut": ("closed before the answer was complete",),
    "reset": ("closed before the answer was complete",),
    "half": ("ends in the middle", "a proxy"),
    "moved": ("redirects elsewhere (302)",),
    "partial": ("partial", "less demand"),
    "shape": ("no plain numbers",),
    "beyond": ("no plain numbers",),
    "matrix": ("a range of time", "rate("),
    "bad query": ("refuses the query (bad_data: parse error: unexpected ))", "its own page"),
    "401": ("denies access (401)", "expired", "bearer_token_file"),
    "403": ("denies access (403)",),
    "404": ("nothing is there (404)", "/prometheus"),
    "429": ("fewer queries (429)", "share one query"),
    "500": ("in trouble (status 500)",),
    "502": ("in trouble (status 502)", "a proxy"),
    "503": ("in trouble (status 503)", "after a start"),
}


@pytest.mark.parametrize("mood", TROUBLES)
async def test_each_trouble_is_named_with_what_to_do_and_heals(web, clock, make, mood):
    source = make(signal=Signal.TOTAL, timeout_s=0.5 if mood == "hang" else 20.0)
    web.vectors[RATE], web.mood = [({}, 5)], mood
    text = await failing(source, ())
    for part in (web.url, *TROUBLES[mood]) if mood not in {"shape", "beyond", "matrix"} else TROUBLES[mood]:
        assert part in text
    assert len(text) < 400
    web.mood = ""
    clock.at_s += 61.0
    assert (await source.read(())).values.tolist() == [5.0]


async def test_a_connection_that_was_reset_since_the_last_query_costs_no_reading(web, make):
    source = make(signal=Signal.TOTAL)
    web.vectors[RATE] = [({}, 5)]
    await source.read(())
    web.mood = "reset once"
    assert (await source.read(())).values.tolist() == [5.0]


async def test_a_refused_connection_says_where(make, unused_tcp_port):
    text = await failing(make(url=f"http://127.0.0.1:{unused_tcp_port}"))
    assert f"http://127.0.0.1:{unused_tcp_port}: " in text
    assert "connection refused" in text
    assert "is it running" in text


async def test_a_name_that_does_not_exist(make):
    assert "is it running, and is `signal.prometheus.url` right?" in await failing(
        make(url="http://prometheus.invalid:9090")
    )


async def test_a_busy_prometheus_is_left_alone_for_as_long_as_it_asks(web, clock, make):
    source = make(signal=Signal.TOTAL)
    web.vectors[RATE], web.mood, web.headers = [({}, 5)], "429", {"Retry-After": "30"}
    for wait_s in (0.0, 29.0):
        clock.at_s += wait_s
        await failing(source, ())
        assert len(web.asked) == 1
    web.mood = ""
    clock.at_s += 1.5
    assert (await source.read(())).values.tolist() == [5.0]


@pytest.mark.parametrize("mood", ["huge", "bomb"])
async def test_memory_is_bounded_whatever_comes(web, make, mood):
    web.mood = mood
    source = make(signal=Signal.TOTAL, timeout_s=20.0)
    tracemalloc.start()
    try:
        await failing(source, ())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20  # although 10 and 64 MiB were sent; the double's own answer is included


async def test_no_vms_are_no_question(web, make):
    found = await make().read([])
    assert (found.vm_ids, found.error, web.asked) == ((), "", [])
    assert found.values.dtype == np.float64


# ── Credentials ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_token_is_read_again_when_its_file_changes_and_shown_nowhere(web, clock, tmp_path):
    token = tmp_path / "token"
    address = Address(web.url, bearer_token_file=token, headers=(("X-Scope-OrgID", "web"),))
    source = PrometheusSource(PrometheusPool(clock).at(address), Past(RATE, Signal.TOTAL), clock)
    web.vectors[RATE] = [({}, 5)]
    said = [await failing(source, ())]
    for text in ("s3cret-one\n", "s3cret-two\n"):
        token.write_text(text)
        clock.at_s += 10.0
        await source.read(())
    token.write_text("s3cret\ns3cret")
    clock.at_s += 10.0
    said.append(await failing(source, ()))
    token.write_text("s3cret-three")
    web.mood = "401"
    clock.at_s += 10.0
    said.append(await failing(source, ()))
    await source.close()
    sent = [(headers["Authorization"], headers["X-Scope-OrgID"]) for _, _, headers in web.asked]
    assert sent == [(f"Bearer s3cret-{number}", "web") for number in ("one", "two", "three")]
    assert f"the file {token} cannot be read (No such file or directory)" in said[0]
    assert f"the file {token} must hold the secret on one line" in said[1]
    assert "expired" in said[2]
    assert "s3cret" not in "".join(said)


async def test_a_query_that_nobody_asks_any_more_is_forgotten(web, make):
    web.vectors[RATE] = web.vectors["other[1m]"] = [({}, 5)]
    first, second = make(signal=Signal.TOTAL), make("other[1m]", Signal.TOTAL)
    await first.read(())
    await second.read(())
    queries = first._queries
    assert set(queries._asked) == {RATE, "other[1m]"}
    await first.close()
    assert set(queries._asked) == {"other[1m]"}
    await second.close()
    assert not queries._asked


# ── The past of a query that serves several fleets ──────────────────────────────────────────────────────


async def no_past(source):
    with pytest.raises(SourceError) as caught:
        await source.history(0.0, 600.0, 60.0)
    assert not caught.value.retryable
    return str(caught.value)


async def test_where_a_label_has_the_fleets_name_it_is_said_what_to_write(web, make):
    web.vectors[RATE] = [
        ({"instance": "10.0.0.1", "service": "web", "team": "web"}, 1),
        ({"instance": "10.0.0.2", "service": "web"}, 1),
        ({"instance": "10.0.0.9", "service": "api"}, 1),
    ]
    shared = [make(fleet=name) for name in ("web", "api")]
    text = await no_past(shared[0])
    assert """write `select: '{service="{fleet}"}'` under signal.prometheus""" in text
    assert '(2 of 3 series carry service="web" now)' in text
    assert '(1 of 3 series carry service="api" now)' in await no_past(shared[1])


@pytest.mark.parametrize("mood", ["", "down"])
async def test_where_no_label_has_it_both_ways_to_write_it_are_said(web, make, mood):
    web.vectors[RATE] = on(("10.0.0.1", 1), ("10.0.0.2", 1))
    shared = [make(fleet=name, url="http://127.0.0.1:1" if mood else None) for name in ("web", "api")]
    text = await no_past(shared[0])
    for part in ("select: '{service=", f"history_query: 'sum({RATE}", "none has the value 'web' now"):
        assert part in text
