"""Checks across fields: each finding, its severity, and the line that it points at."""

from __future__ import annotations

import pytest

from autoscaler.config.loading import load_policies

BASE = """\
fleet: web
signal:
  kind: {kind}
  source: trace
  max_age: {max_age}
vm: {{capacity: 120/s, start_time: {start_time}}}
bounds: {{minimum: {minimum}, maximum: {maximum}}}
reactive: {reactive}
"""
BASE_LINES = 8


def load(folder, extra="", tick_s=10.0, defaults="", **change):
    fields = {
        "kind": "throughput",
        "max_age": "60s",
        "start_time": "40s",
        "minimum": 1,
        "maximum": 10,
        "reactive": "{}",
        **change,
    }
    (folder / "web.yaml").write_text(BASE.format(**fields) + extra)
    if defaults:
        (folder / "defaults.yaml").write_text(defaults)
    return load_policies(folder, tick_s)


def the_error(loaded, line, *words):
    assert loaded.policies == ()
    assert len(loaded.errors) == 1, [str(error) for error in loaded.errors]
    _check(loaded.errors[0], line, words)


def the_warning(loaded, line, *words):
    assert (loaded.errors, len(loaded.policies)) == ((), 1)
    assert len(loaded.warnings) == 1, [str(warning) for warning in loaded.warnings]
    _check(loaded.warnings[0], line, words)


def _check(problem, line, words):
    assert problem.mark.line == line, str(problem)
    assert problem.advice
    for word in words:
        assert word in str(problem)


def clean(loaded):
    assert (loaded.errors, loaded.warnings) == ((), ())


def test_the_base_is_clean(tmp_path):
    clean(load(tmp_path))


def test_minimum_above_maximum(tmp_path):
    the_error(load(tmp_path, minimum=11), 7, "`bounds.minimum` (11) is above `bounds.maximum` (10)")


def test_bounds_that_are_one_number(tmp_path):
    clean(load(tmp_path, minimum=10))


def test_on_time_below_the_billing_floor(tmp_path):
    the_error(
        load(tmp_path, "guards: {minimum_on_time: 59s}\n"),
        9,
        "59s is below the 1m that every start is billed for",
    )


def test_on_time_at_the_billing_floor(tmp_path):
    clean(load(tmp_path, "guards: {minimum_on_time: 60s}\n"))


@pytest.mark.parametrize("direction", ["cooldown_out", "cooldown_in"])
def test_a_cooldown_shorter_than_the_start_time(tmp_path, direction):
    the_error(load(tmp_path, f"guards:\n  {direction}: 39s\n"), 10, f"`guards.{direction}`", "at least 40s")


def test_no_cooldown_out_is_fine(tmp_path):
    clean(load(tmp_path, "guards: {cooldown_out: 0s, cooldown_in: 40s}\n"))
    clean(load(tmp_path, "guards: {cooldown_out: 40s}\n"))
    the_error(load(tmp_path, "guards: {cooldown_out: 500ms}\n"), 9, "write 0s for none, or at least 40s")


def test_a_finding_between_the_defaults_and_the_fleet_points_at_what_the_fleet_wrote(tmp_path):
    loaded = load(tmp_path, start_time="200s", defaults="guards: {cooldown_in: 2m}\n")
    the_error(loaded, 6, "shorter than `vm.start_time` (200s)")
    assert loaded.errors[0].mark.file.name == "web.yaml"


def test_a_finding_in_the_defaults_alone_points_there(tmp_path):
    loaded = load(tmp_path, defaults="act: false\nguards: {minimum_on_time: 5s}\n")
    the_error(loaded, 2)
    assert loaded.errors[0].mark.file.name == "defaults.yaml"


@pytest.mark.parametrize("kind", ["throughput", "utilisation"])
def test_scale_to_zero_on_the_fleets_own_signal(tmp_path, kind):
    the_error(
        load(tmp_path, kind=kind, minimum=0),
        7,
        "may scale in to zero",
        "nothing to wake it",
        "write `minimum: 1`",
    )


def test_scale_to_zero_with_a_signal_from_outside(tmp_path):
    clean(load(tmp_path, kind="total", minimum=0))


WINDOW = 'schedule:\n  - {name: day, from: "08:00", to: "18:00", at_least: 3}\n'


def test_scale_to_zero_with_a_schedule_only_warns(tmp_path):
    the_warning(load(tmp_path, WINDOW, minimum=0), 7, "nothing to wake it but the schedule")


def test_a_schedule_alone_may_go_to_zero(tmp_path):
    clean(load(tmp_path, WINDOW, minimum=0, reactive="off"))


def test_a_policy_that_asks_for_nothing(tmp_path):
    the_error(load(tmp_path, reactive="off"), 1, "nothing in this policy asks for VMs", "`reactive: {}`")


def test_stabilisation_and_age_shorter_than_a_tick(tmp_path):
    the_warning(
        load(tmp_path, "guards: {stabilisation: 9s}\n"), 9, "shorter than a tick (10s)", "at least 20s"
    )
    clean(load(tmp_path, "guards: {stabilisation: 10s}\n"))
    the_warning(load(tmp_path, max_age="9s"), 5, "shorter than a tick (10s)", "at least 20s")
    clean(load(tmp_path, max_age="10s"))


def test_the_length_of_a_tick_is_the_callers(tmp_path):
    loaded = load(tmp_path, tick_s=3600.0)
    assert [warning.mark.line for warning in loaded.warnings] == [1, 5]


def test_a_lag_that_makes_every_reading_stale(tmp_path):
    the_error(load(tmp_path, max_age="60s\n  trace: {lag: 60s}"), 6, "none would ever count")


# ── Scraping and readiness ──────────────────────────────────────────────────────────────────────────────


def scrape(folder, section, kind="throughput"):
    (folder / "web.yaml").write_text(
        f"fleet: web\nsignal:\n  kind: {kind}\n  source: scrape\n{section}vm: {{capacity: 1/s}}\nbounds: {{maximum: 2}}\nreactive: {{}}\n"
    )
    return load_policies(folder)


def test_scraping_needs_its_section_and_a_metric(tmp_path):
    the_error(scrape(tmp_path, ""), 4, "there is no section `signal.scrape`")
    the_error(scrape(tmp_path, "  scrape: {}\n"), 5, "a gauge needs `signal.scrape.metric`")
    clean(scrape(tmp_path, "  scrape: {metric: requests_per_second}\n"))
    clean(scrape(tmp_path, "  scrape: {type: cpu}\n", kind="utilisation"))


def test_cpu_is_utilisation(tmp_path):
    the_error(
        scrape(tmp_path, "  scrape: {type: cpu}\n"),
        5,
        "type cpu measures utilisation, but `signal.kind` is throughput",
    )


def test_the_address_belongs_to_per_vm_signals(tmp_path):
    the_error(scrape(tmp_path, "  scrape: {metric: m, url: 'http://lb/metrics'}\n"), 5, "has no {address}")
    the_error(scrape(tmp_path, "  scrape: {metric: m}\n", kind="total"), 3, "asks every VM")
    clean(scrape(tmp_path, "  scrape: {metric: m, url: 'http://lb/metrics'}\n", kind="total"))


@pytest.mark.parametrize("kind", ["total", "throughput"])
def test_no_address_carries_a_password(tmp_path, kind):
    host = "{address}" if kind == "throughput" else "lb"
    section = "  scrape: {{metric: m, url: 'http://{}/metrics{}'}}\n"
    the_error(scrape(tmp_path, section.format(f"scaler:s3cret@{host}", ""), kind=kind), 5, "would be logged")
    clean(scrape(tmp_path, section.format(host, "?who=a@b"), kind=kind))


@pytest.mark.parametrize("metric", ["9lives", "a{b=c}", "a{b='c'}", "a b", 'a{b=~"c"}', "''"])
def test_what_is_no_metric(tmp_path, metric):
    the_error(scrape(tmp_path, f"  scrape:\n    metric: {metric}\n"), 6, "is not a metric; write its name")


def test_the_http_probe_needs_a_url(tmp_path):
    the_error(load(tmp_path, "readiness: {probe: http}\n"), 9, "needs a `readiness.url` with {address}")
    clean(load(tmp_path, "readiness: {probe: http, url: 'http://{address}/health'}\n"))


def test_a_readiness_wait_longer_than_the_start_time(tmp_path):
    the_warning(load(tmp_path, "readiness: {after: 40s}\n"), 9, "raise `vm.start_time`")


# ── Forecast, steps, schedule, supply ───────────────────────────────────────────────────────────────────


def test_a_cover_between_the_quantiles(tmp_path):
    the_error(load(tmp_path, "forecast: {cover: 93%}\n"), 9, "write 50% or 90% or 95% or 99%")
    clean(load(tmp_path, "forecast: {cover: 50%}\n"))


def test_absurd_half_lives(tmp_path):
    the_error(load(tmp_path, "forecast: {half_life: 5m}\n"), 9, "the spread would be noise", "at least 400s")
    the_warning(load(tmp_path, "forecast: {half_life: 100d}\n"), 9, "hardly ever forgets")
    clean(load(tmp_path, "forecast: {half_life: 400s}\n"))
    clean(load(tmp_path, "forecast: {half_life: 60d}\n"))


def test_steps_that_overlap(tmp_path):
    steps = "steps:\n  - {above: 70%, change: +2}\n  - {above: 90%, change: +4}\n"
    the_error(load(tmp_path, steps), 11, "step 2 (above 90%) overlaps step 1 (above 70%)")
    clean(load(tmp_path, steps.replace("70%", "70%, below: 90%")))


def test_steps_that_match_always_or_never(tmp_path):
    the_error(load(tmp_path, "steps:\n  - {change: +2}\n"), 10, "matches always")
    the_error(load(tmp_path, "steps:\n  - {above: 90%, below: 80%, change: +2}\n"), 10, "never matches")
    first = "steps:\n  - {above: 90%, change: +2}\n"
    point = load(tmp_path, first + "  - {above: 60%, below: 60%, change: +1}\n")
    the_error(point, 11, "step 2 (above 60% and below 60%) never matches")


def test_what_is_wrong_at_one_place_is_told_in_the_order_of_the_checks(tmp_path):
    edges = ("above: 90%", "above: 80%, below: 90%", "above: 70%, below: 80%", "above: 60%, below: 70%")
    steps = "".join(f"  - {{{each}, change: +2}}\n" for each in edges)
    errors = load(tmp_path, f"steps:\n{steps}  - {{change: +1}}\n").errors
    assert {error.mark.line for error in errors} == {14}
    assert [str(error).partition("error: ")[2].partition(";")[0] for error in errors] == [
        "step 5 matches always",
        "step 5 (always) overlaps step 1 (above 90%)",
        "step 5 (always) overlaps step 2 (above 80% and below 90%)",
        "step 5 (always) overlaps step 3 (above 70% and below 80%)",
        "step 5 (always) overlaps step 4 (above 60% and below 70%)",
    ]


def test_steps_that_undo_each_other(tmp_path):
    steps = "steps:\n  - {above: 70%, change: +2}\n  - {below: 50%, change: -1}\n"
    the_warning(
        load(tmp_path, steps),
        10,
        "can undo each other forever",
        "with 1 VMs at 70% the first orders 3",
        "below 50%",
    )
    clean(load(tmp_path, steps.replace("50%", "20%")))


def test_steps_by_share_hunt_only_where_the_share_is_large(tmp_path):
    steps = "steps:\n  - {above: 80%, change: +SHARE}\n  - {below: 60%, change: -1}\n"
    the_warning(
        load(tmp_path, steps.replace("SHARE", "40%"), minimum=5), 10, "with 5 VMs", "the first orders 7"
    )
    clean(load(tmp_path, steps.replace("SHARE", "10%"), minimum=5))


HUNTING = {
    "a small fleet": (1, 10, "above: 60%, change: +1", "below: 31%, change: -1", "with 1 VMs at 60% the first orders 2"),
    "a fleet that may be empty": (0, 10, "above: 60%, change: +1", "below: 31%, change: -1", "with 1 VMs at 60%"),
    "a share rounds up": (5, 10, "above: 80%, change: +50%", "below: 51%, change: -1", "with 5 VMs at 80% the first orders 8"),
    "both have two edges": (5, 10, "above: 50%, below: 60%, change: +5", "above: 20%, below: 28%, change: -1", "with 5 VMs at 50% the first orders 10, whose utilisation lies above 20% and below 28%"),
    "from where the other begins": (5, 10, "above: 50%, below: 90%, change: +5", "above: 30%, below: 40%, change: -1", "with 5 VMs at 60% the first orders 10"),
    "the edges meet": (1, 10, "above: 60%, change: +1", "below: 30%, change: -1", None),
    "the other lies above": (9, 10, "above: 50%, below: 60%, change: +1", "above: 60%, below: 70%, change: -1", None),
}  # fmt: skip


@pytest.mark.parametrize("case", HUNTING)
def test_which_steps_undo_each_other(tmp_path, case):
    minimum, maximum, out, back, words = HUNTING[case]
    loaded = load(
        tmp_path, f"steps:\n  - {{{back}}}\n  - {{{out}}}\n", kind="total", minimum=minimum, maximum=maximum
    )
    if words is None:
        clean(loaded)
    else:
        the_warning(loaded, 11, f"steps 2 and 1 can undo each other forever: {words}")


def test_no_such_time_zone(tmp_path):
    the_error(
        load(tmp_path, WINDOW.replace("at_least: 3", "at_least: 3, time_zone: Europe/Belrin")),
        10,
        "did you mean `Europe/Berlin`?",
    )


@pytest.mark.parametrize("zone", ["../../etc/passwd", "/etc/localtime", "Nowhere", "'Europe'"])
def test_hostile_time_zones(tmp_path, zone):
    the_error(
        load(tmp_path, WINDOW.replace("at_least: 3", f"at_least: 3, time_zone: {zone}")),
        10,
        "there is no time zone",
    )


def test_a_window_that_is_empty_or_asks_for_too_much(tmp_path):
    the_error(load(tmp_path, WINDOW.replace("18:00", "08:00")), 10, "begins where it ends")
    clean(load(tmp_path, WINDOW.replace("at_least: 3", "at_least: 10")))
    the_error(
        load(tmp_path, WINDOW.replace("at_least: 3", "at_least: 30")),
        10,
        "asks for 30 VMs, but `bounds.maximum` is 10",
    )


def test_a_warm_pool_upside_down(tmp_path):
    the_error(load(tmp_path, "warm_pool: {minimum: 5, maximum: 4}\n"), 9, "`warm_pool.minimum` (5) is above")
    clean(load(tmp_path, "warm_pool: {minimum: 4, maximum: 4}\n"))


def test_provisioning_less_than_the_bounds_allow(tmp_path):
    the_warning(
        load(tmp_path, "provision: {launch_template: lt-1, maximum: 9}\n"), 9, "can then never be reached"
    )
    clean(load(tmp_path, "provision: {launch_template: lt-1, maximum: 10}\n"))


@pytest.mark.parametrize("kind", ["utilisation", "total"])
def test_capacity_is_not_learned_where_the_work_of_each_vm_is_not_measured(tmp_path, kind):
    loaded = load(tmp_path, kind=kind)
    clean(loaded)
    (tmp_path / "web.yaml").unlink()
    text = BASE.replace("capacity: 120/s,", "capacity: 120/s, learn_capacity: {{}},")
    fields = {"max_age": "60s", "start_time": "40s", "minimum": 1, "maximum": 10, "reactive": "{}"}
    (tmp_path / "web.yaml").write_text(text.format(kind=kind, **fields))
    the_error(load_policies(tmp_path, 10.0), 6, "learn_capacity", f"`signal.kind` {kind} does not measure it")


def vm_with(folder, more):
    fields = {"max_age": "60s", "start_time": "40s", "minimum": 1, "maximum": 10, "reactive": "{}"}
    text = BASE.format(kind="throughput", **fields).replace("vm: {", "vm: {" + more + ", ")
    (folder / "web.yaml").write_text(text)
    return load_policies(folder, 10.0)


def test_utilisation_that_is_learned_from_is_read_from_every_vm(tmp_path):
    clean(vm_with(tmp_path, "learn_capacity: {url: 'http://{address}:9100/metrics'}"))
    the_error(vm_with(tmp_path, "learn_capacity: {url: 'http://lb/m'}"), 6, "has no {address}")


def test_a_type_has_one_weight(tmp_path):
    of = "weights: [{{type: {}, weight: 1}}, {{type: {}, weight: 2}}, {{type: {}, weight: 3}}]"
    clean(vm_with(tmp_path, of.format("a", "b", "c")))
    the_error(vm_with(tmp_path, of.format("b", "c", "b")), 6, "`vm.weights` gives type b twice")
    the_error(vm_with(tmp_path, of.format("c", "b", "b")), 6, "`vm.weights` gives type b twice")


SCRAPED = BASE.replace("source: trace", "source: scrape").replace(
    "  max_age: {max_age}",
    "  max_age: {max_age}\n  scrape: {{url: '{url}', metric: waiting}}{more}",
)


@pytest.mark.parametrize(
    ("kind", "url", "more", "line", "words"),
    [
        ("concurrency", "http://{address}:9/m", "", 3, "kind concurrency needs `signal.in_flight`"),
        ("queue", "http://q:9/m", "\n  in_flight: 5", 7, "`signal.in_flight` is for kind concurrency"),
        ("queue", "http://{address}:9/m", "", 6, "kind queue is one reading for the fleet"),
        ("concurrency", "http://lb:9/m", "\n  in_flight: 5", 6, "kind concurrency is read from every VM"),
    ],
)
def test_work_in_flight_and_backlogs_need_what_gives_them_a_meaning(tmp_path, kind, url, more, line, words):
    fields = {"max_age": "60s", "start_time": "40s", "minimum": 1, "maximum": 10, "reactive": "{}"}
    (tmp_path / "web.yaml").write_text(SCRAPED.format(kind=kind, url=url, more=more, **fields))
    the_error(load_policies(tmp_path, 10.0), line, words)


def test_a_fleet_that_works_off_a_queue_may_go_to_zero(tmp_path):
    fields = {"max_age": "60s", "start_time": "40s", "minimum": 0, "maximum": 10, "reactive": "{}"}
    (tmp_path / "web.yaml").write_text(SCRAPED.format(kind="queue", url="http://q:9/m", more="", **fields))
    clean(load_policies(tmp_path, 10.0))


@pytest.mark.parametrize("kind", ["queue", "concurrency"])
def test_a_recording_holds_neither_backlogs_nor_work_in_flight(tmp_path, kind):
    loaded = load(tmp_path, kind=kind)
    assert any("a trace holds work per second" in str(error) for error in loaded.errors)


def test_a_stopped_vm_that_costs_more_than_one_in_service_is_probably_a_price_per_month(tmp_path):
    prices = "prices: {{in_service: 0.1/h, stopped: {}/h}}\n"
    the_warning(
        load(tmp_path, prices.format(3.2)), 9, "no less stopped (3.2/h) than in service", "divides by 730"
    )
    the_warning(load(tmp_path, prices.format(0.1)), 9, "no less stopped (0.1/h) than in service (0.1/h)")
    assert load(tmp_path, prices.format(0.09)).warnings == ()
