"""Policy files: what loads, what is refused, with which position and advice."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from autoscaler.config.documents import MOST_PROBLEMS, Problem, Severity
from autoscaler.config.loading import load_policies, load_policy, require_policy
from autoscaler.config.policy import Policy, policy_from
from autoscaler.config.rendering import effective_data
from autoscaler.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "policies"

WEB = """\
fleet: web
signal: {kind: throughput, source: trace}
vm: {capacity: 120/s}
bounds: {maximum: 10}
reactive: {}
"""


def write(folder, text, name="web.yaml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def only(problems) -> Problem:
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


# ── Good files ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_shipped_policies_are_valid_without_warnings():
    loaded = load_policies(SHIPPED)
    assert (loaded.errors, loaded.warnings) == ((), ())
    assert {policy.fleet for policy in loaded.policies if policy.objective} == {
        "api",
        "batch",
        "event",
        "office",
    }
    (web,) = (policy for policy in loaded.policies if policy.act)
    assert (web.fleet, web.act, web.vm.capacity_per_s, web.bounds.minimum, web.bounds.maximum) == (
        "web",
        True,
        120.0,
        2,
        60,
    )
    assert web.signal.trace
    assert web.signal.trace.file is None
    assert (web.prices.in_service_per_h, web.prices.stopped_per_h) == (0.096, 0.0044)
    assert loaded.files == {policy.fleet: SHIPPED / f"{policy.fleet}.yaml" for policy in loaded.policies}


def test_the_shipped_defaults_are_the_models_own():
    written = YAML(typ="safe").load(SHIPPED / "defaults.yaml")
    plain = policy_from(
        {
            "fleet": "x",
            "signal": {"kind": "total", "source": "trace"},
            "vm": {"capacity": "1/s"},
            "bounds": {"maximum": 1},
        }
    )
    merged = load_policy(SHIPPED / "web.yaml").policies[0]
    for key in set(written) - {"signal", "vm", "bounds"}:
        assert policy_from({**effective_data(plain), key: written[key]}) == plain, key
    for section in ("signal", "vm", "bounds"):
        changed = {**effective_data(plain), section: {**effective_data(plain)[section], **written[section]}}
        assert policy_from(changed) == plain, section
    assert merged.guards == plain.guards


def test_a_fleet_lies_over_the_defaults_section_by_section(tmp_path):
    write(
        tmp_path,
        "guards: {cooldown_in: 10m, rate_in: {vms: 2}}\nsteps: [{above: 80%, change: 1}]\nact: true\n",
        "defaults.yaml",
    )
    write(tmp_path, WEB + "guards: {rate_in: {vms: 3, per: 2m}}\nsteps: []\nact: false\n")
    loaded = load_policies(tmp_path)
    assert loaded.errors == ()
    (policy,) = loaded.policies
    assert (policy.guards.cooldown_in_s, policy.guards.rate_in.vms, policy.guards.rate_in.per_s) == (
        600.0,
        3,
        120.0,
    )
    assert (policy.guards.stabilisation_s, policy.steps, policy.act) == (300.0, (), False)


@pytest.mark.parametrize("word", ["off", "false"])
def test_a_section_of_the_defaults_can_be_switched_off(tmp_path, word):
    write(tmp_path, "forecast: {cover: 99%}\n", "defaults.yaml")
    write(tmp_path, WEB + f"forecast: {word}\n")
    assert load_policies(tmp_path).policies[0].forecast is None


def test_a_policy_can_stand_alone(tmp_path):
    policy = require_policy(write(tmp_path, WEB))
    assert policy == policy_from(YAML(typ="safe").load(WEB))
    assert not policy.act


def test_a_trace_file_is_relative_to_its_policy(tmp_path):
    path = write(tmp_path, WEB.replace("source: trace", "source: trace, trace: {file: ../traces/day.csv}"))
    trace = require_policy(path).signal.trace
    assert trace
    assert trace.file == str((tmp_path / "../traces/day.csv").resolve())


def test_files_that_are_no_policies_are_left_alone(tmp_path):
    write(tmp_path, WEB)
    write(tmp_path, "[", ".#web.yaml")
    write(tmp_path, "[", "web.yaml~")
    write(tmp_path, "[", "notes.txt")
    assert load_policies(tmp_path).errors == ()


# ── Bad values: message, place, advice ──────────────────────────────────────────────────────────────────

EVENT = "events: [{name: a, begins: 2026-12-31T22:00:00Z, lasts: 1h, factor:"
BAD_VALUES = [
    ("headroom: 30%", "1", "unknown key `headroom`", "it belongs at `reactive.headroom`"),
    ("bouns: {}", "1", "unknown key `bouns`", "did you mean `bounds`?"),
    ("guards: {cooldown_inn: 5m}", "10", "unknown key `guards.cooldown_inn`", "did you mean `cooldown_in`?"),
    (
        "guards: {zzz: 5m}",
        "10",
        "unknown key `guards.zzz`",
        "valid keys here are stabilisation, cooldown_out,",
    ),
    (
        "guards: {stabilisation_s: 5}",
        "10",
        "unknown key `guards.stabilisation_s`",
        "did you mean `stabilisation`?",
    ),
    ("guards: {cooldown_in: 300}", "23", "`300` is not a duration", "for example `300s`"),
    ("guards: {cooldown_in: .inf}", "23", "`inf` is not a duration", "for example `30s` or `1h30m`"),
    ("guards: {cooldown_in: -5}", "23", "`-5` is not a duration", "for example `30s` or `1h30m`"),
    (
        "guards: {cooldown_in: 5 minutes}",
        "23",
        "`5 minutes` is not a duration",
        "for example `30s` or `1h30m`",
    ),
    ("guards: {cooldown_in: -5m}", "23", "is not a duration", ""),
    ("guards: {cooldown_in: 400d}", "23", "`400d` is out of range; it must be 0s to 1d", ""),
    ("guards: {minimum_coverage: 0.7}", "28", "`0.7` is not a percentage", "for example `30%`"),
    ("guards: {minimum_coverage: 170%}", "28", "out of range; it must be 0% to 100%", ""),
    ("guards: {rate_in: {vms: 1.5}}", "25", "`1.5` is not a whole number", "a count without a unit"),
    ("guards: {rate_in: {vms: 0}}", "25", "`0` is too small", "at least 1"),
    ("guards: {rate_in: {}}", "10", "`guards.rate_in.vms` is missing", "add it"),
    ("guards: 5m", "9", "`guards` is `5m`, not a section", "put its keys below it"),
    ("guards: [5m]", "9", "`guards` is a list, not a section", ""),
    ("prices: {in_service: 0.096}", "22", "`0.096` is not a price per hour", "`0.096/h`"),
    ("prices: {in_service: .inf}", "22", "not a price", ""),
    ("prices: {start: .nan}", "17", "not an amount of money", "plain number"),
    ("prices: {start: -1}", "17", "out of range; it must be 0 to", ""),
    ("steps: {above: 80%}", "8", "`steps` is a section, not a list", "dash"),
    ("steps: [{above: 80%, change: 0}]", "30", "a change of zero", ""),
    ("steps: [{above: 80%, change: +1.5}]", "30", "not a change", "`+10%`"),
    ("steps: [{above: 80%}]", "1", "`steps[0].change` is missing", "for example `change: +2`"),
    (f"{EVENT} 0}}]", "69", "`0` is too small", "it must be above 0"),
    (f"{EVENT} lots}}]", "69", "`lots` is not a number", "write a plain number"),
    ("act: yes", "6", "`yes` is neither true nor false", "write `true` or `false`"),
    ("act: 1", "6", "`1` is neither true nor false", ""),
    ("forecast:", "1", "the section is empty", "`{}` to take all of its defaults, or `off`"),
    ("readiness: {probe: htp}", "20", "`htp` is not one of the choices", "did you mean `http`?"),
    (
        "readiness: {probe: http, url: ''}",
        "31",
        "is not a web address",
        "for example http://{address}:9100/metrics",
    ),
    (
        "readiness: {probe: http, url: 'http://scaler:s3cret@{address}/health'}",
        "31",
        "an address with a password in it would be logged",
        "let the service admit this machine without one",
    ),
    ("schedule: [{name: a, from: 8, to: '9:00', at_least: 1}]", "28", "`8` is not a time of day", '"08:00"'),
    ("schedule: [{name: a, from: '25:00', to: '9:00', at_least: 1}]", "28", "not a time of day", ""),
    (
        "schedule: [{name: a, days: moon, from: '8:00', to: '9:00', at_least: 1}]",
        "28",
        "`moon` is not a choice of days",
        "mon-fri",
    ),
    (
        "provision: {launch_template: '', maximum: 9}",
        "30",
        "the text is empty",
        "fill it in, or remove the key",
    ),
    ("readiness: {url: 'file:///etc/passwd'}", "18", "not a web address", ""),
    ("guards: {cooldown_in: true}", "23", "`true` is not a duration", ""),
    ("signal: 5", "1", "the key `signal` appears twice (first in line 2)", "keep one of the two"),
    (
        "provision: {launch_template: lt-1, version: 3, maximum: 9}",
        "45",
        "`3` is not a text",
        "put it in quotes",
    ),
]


@pytest.mark.parametrize(
    ("line", "column", "message", "advice"), BAD_VALUES, ids=[case[0] for case in BAD_VALUES]
)
def test_a_bad_value(tmp_path, line, column, message, advice):
    path = write(tmp_path, WEB + line + "\n")
    loaded = load_policies(tmp_path)
    problem = only(loaded.errors)
    assert loaded.policies == ()
    assert str(problem).startswith(f"{path}:6:")
    assert message in str(problem)
    assert advice in str(problem)
    if "missing" not in message:
        assert problem.mark.column == int(column)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fleet: web\n", "", "`fleet` is missing"),
        ("fleet: web", "fleet: Web 1", "`Web 1` is not a valid name; use up to 63 lower-case letters"),
        ("fleet: web", "fleet: 7", "`7` is not a text; put it in quotes"),
        ("fleet: web", "fleet:", "`fleet` is empty; add it"),
        ("vm: {capacity: 120/s}", "vm:", "`vm` is empty; put its keys below it, indented"),
        ("fleet: web", f"fleet: {'w' * 64}", "is not a valid name"),
        ("kind: throughput", "kind: utilization", "did you mean `utilisation`?"),
        ("capacity: 120/s", "capacity: 120", "write work per second, for example `120/s`"),
        ("{capacity: 120/s}", "{}", "`vm.capacity` is missing; add it, for example `capacity: 120/s`"),
        ("vm: {capacity: 120/s}\n", "", "`vm` is missing"),
        ("maximum: 10", "maximum: many", "`many` is not a whole number"),
        ("maximum: 10", "maximum: true", "`true` is not a whole number"),
    ],
)
def test_what_a_policy_needs(tmp_path, old, new, message):
    assert old in WEB
    path = write(tmp_path, WEB.replace(old, new))
    problem = only(load_policies(tmp_path).errors)
    assert message in str(problem)
    assert problem.mark.file == path


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "capacity: 120/s",
            "capasity: 120/s",
            3,
            "`vm.capasity`; did you mean `capacity`, which is missing?",
        ),
        ("vm: ", "vmm: ", 3, "`vmm`; did you mean `vm`, which is missing?"),
        ("vm: ", "guards: {rate_in: {vns: 3}}\nvm: ", 3, "`guards.rate_in.vns`; did you mean `vms`, which"),
        ("fleet: web", "flet: web", 1, "`flet`; did you mean `fleet`, which is missing?"),
    ],
)
def test_a_typo_in_a_required_key_is_one_problem_where_the_typo_is(tmp_path, old, new, line, message):
    assert old in WEB
    path = write(tmp_path, WEB.replace(old, new))
    problem = only(load_policies(tmp_path).errors)
    assert (problem.mark.file, problem.mark.line) == (path, line)
    assert f"unknown key {message}" in str(problem)


def test_a_typo_in_a_section_that_has_defaults_names_what_is_missing_in_it(tmp_path):
    write(tmp_path, "signal: {max_age: 60s}\n", "defaults.yaml")
    write(tmp_path, WEB.replace("signal:", "signals:"))
    said = str(only(load_policies(tmp_path).errors))
    assert "unknown key `signals`; did you mean `signal`, where `kind` and `source` are missing?" in said


def test_an_unknown_key_that_is_like_no_missing_one_takes_nothing_away(tmp_path):
    write(tmp_path, WEB.replace("{capacity: 120/s}", "{start_tine: 40s}"))
    said = [str(problem) for problem in load_policies(tmp_path).errors]
    assert len(said) == 2
    assert "`vm.capacity` is missing; add it" in said[0] + said[1]
    assert "`vm.start_tine`; did you mean `start_time`?" in said[0] + said[1]


def test_all_errors_of_all_files_are_told_at_once_and_good_files_still_load(tmp_path):
    write(tmp_path, WEB)
    write(
        tmp_path,
        WEB.replace("fleet: web", "fleet: api") + "act: maybe\nzone: a\nguards: {cooldown_in: 5}\n",
        "api.yaml",
    )
    write(tmp_path, "fleet: [\n", "broken.yaml")
    loaded = load_policies(tmp_path)
    assert [policy.fleet for policy in loaded.policies] == ["web"]
    assert [(problem.mark.file.name, problem.mark.line) for problem in loaded.errors[:3]] == [
        ("api.yaml", 6),
        ("api.yaml", 7),
        ("api.yaml", 8),
    ]
    assert {problem.mark.file.name for problem in loaded.errors} == {"api.yaml", "broken.yaml"}


def test_two_files_of_one_fleet_are_both_refused(tmp_path):
    write(tmp_path, WEB, "a.yaml")
    write(tmp_path, "# a copy\n" + WEB, "b.yaml")
    loaded = load_policies(tmp_path)
    assert loaded.policies == ()
    assert [
        (problem.mark.file.name, problem.mark.line, problem.mark.column) for problem in loaded.errors
    ] == [("a.yaml", 1, 8), ("b.yaml", 2, 8)]
    assert "fleet `web` has another policy in b.yaml" in loaded.errors[0].message


# ── Bad texts ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "the file is empty"),
        ("# only a comment\n", "1:1", "the file is empty"),
        ("---\n", "1:1", "the file is empty"),
        ("null\n", "1:1", "the file is empty"),
        ("- fleet: web\n", "1:1", "the top level is a list"),
        ("web\n", "1:1", "the top level is a text"),
        ("fleet: web\n\tact: true\n", "2:1", "a tab where YAML allows none; indent with spaces"),
        ("fleet: web\nvm:\n\tcapacity: 1/s\n", "3:1", "a tab where YAML allows none"),
        ("fleet: web\nfleet: api\n", "2:1", "the key `fleet` appears twice (first in line 1)"),
        ("vm: {capacity: 1/s, capacity: 2/s}\n", "1:21", "the key `capacity` appears twice"),
        ("fleet: web\nvm: {capacity\n", "3:1", "not YAML"),
        ("fleet: 'web\n", "2:1", "not YAML"),
        ("fleet: web\n---\nfleet: api\n", "2:1", "not YAML"),
        ("{[a]: b}\n", "1:2", "a key must be a word"),
        (b"fleet: w\xe9b\n", "1:9", "the text is not UTF-8"),
        (b"act: true\nfleet: web\x00\n", "2:11", "not YAML: U+0000 is not text; remove it"),
        ("a: " + "[" * 60_000, "1:1", "brackets are nested too deeply"),
        ("- " * 2_000, "1:1", "nested too deeply"),
        ("a: " + "[" * 40 + "]" * 40, "1:24", "too deeply nested"),
        ("#" * 70_000, "1:1", "larger than 64 KiB"),
        (
            "a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]\n",
            None,
            "too many",
        ),
        ("a: &a [*a]\n", None, "too deeply nested"),
    ],
)
def test_a_bad_text(tmp_path, text, place, message):
    path = write(tmp_path, text)
    problem = only(load_policies(tmp_path).errors)
    assert message in str(problem)
    if place is not None:
        assert str(problem).startswith(f"{path}:{place}: error: ")


def test_python_objects_in_yaml_are_text(tmp_path):
    write(tmp_path, WEB + "act: !!python/object/apply:os.system [echo]\n")
    assert "`act`: a list is neither true nor false" in str(only(load_policies(tmp_path).errors))


def test_a_pipe_that_nobody_writes_to_is_empty_and_holds_nobody_up(tmp_path):
    write(tmp_path, WEB)
    os.mkfifo(tmp_path / "pipe.yaml")
    loaded = load_policies(tmp_path)
    assert str(only(loaded.errors)).startswith(f"{tmp_path / 'pipe.yaml'}:1:1: error: the file is empty")
    assert [policy.fleet for policy in loaded.policies] == ["web"]


def test_a_pipe_that_somebody_writes_to_is_read_to_its_end():
    reading, writing = os.pipe()
    try:
        os.write(writing, WEB.encode())
        os.close(writing)
        assert require_policy(Path(f"/dev/fd/{reading}"), SHIPPED / "defaults.yaml").fleet == "web"
    finally:
        os.close(reading)


@pytest.mark.parametrize("number", ["0x" + "f" * 20_000, "0o" + "7" * 20_000, "9" * 20_000])
def test_a_number_too_long_for_python_is_a_mistake_like_any_other(tmp_path, number):
    write(tmp_path, WEB.replace("maximum: 10", f"maximum: {number}"))
    assert "is not a whole number" in str(only(load_policies(tmp_path).errors))


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "web.yaml").mkdir()
    assert "the file cannot be read" in str(only(load_policies(tmp_path).errors))


def test_no_folder_and_no_policies(tmp_path):
    assert "no such folder" in str(only(load_policies(tmp_path / "none").errors))
    assert "no policy in this folder" in str(only(load_policies(tmp_path).errors))


# ── Defaults ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_error_of_the_defaults_is_told_once_and_stops_all(tmp_path):
    defaults = write(tmp_path, "guards:\n  cooldown_in: 5\n", "defaults.yaml")
    write(tmp_path, WEB)
    write(tmp_path, WEB.replace("fleet: web", "fleet: api") + "act: maybe\n", "api.yaml")
    loaded = load_policies(tmp_path)
    assert loaded.policies == ()
    assert [str(problem).split(" error")[0] for problem in loaded.errors] == [
        f"{tmp_path / 'api.yaml'}:6:6:",
        f"{defaults}:2:16:",
    ]


def test_defaults_cannot_name_a_fleet(tmp_path):
    write(tmp_path, "fleet: web\n", "defaults.yaml")
    write(tmp_path, WEB)
    assert "defaults cannot name a fleet" in str(only(load_policies(tmp_path).errors))


def test_empty_or_broken_defaults_are_an_error(tmp_path):
    write(tmp_path, WEB)
    for text in ("", "[]", "a: ["):
        path = write(tmp_path, text, "defaults.yaml")
        assert only(load_policies(tmp_path).errors).mark.file == path


def test_defaults_that_were_asked_for_must_exist(tmp_path):
    problem = only(load_policy(write(tmp_path, WEB), tmp_path / "none.yaml").errors)
    assert "none.yaml:1:1: error: the file cannot be read" in str(problem)


def test_require_policy_raises_all_errors_as_lines(tmp_path):
    path = write(tmp_path, WEB + "act: maybe\nzone: a\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path}:6:6: error")) as refused:
        require_policy(path)
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("lines", "described", "more"),
    [
        ("".join(f"k{at}: 1\n" for at in range(300)), MOST_PROBLEMS, 250),
        ("k: 1\n" * 301, MOST_PROBLEMS, 250),
        ("k1: 1\n" * 2 + "steps:\n" + "- {}\n" * 300, 1, 0),
        ("k0: 1\nsteps:\n" + "- {}\n" * 300, MOST_PROBLEMS + 1, 250),
        ("".join(f"k{at}: 1\n" for at in range(MOST_PROBLEMS)), MOST_PROBLEMS, 0),
    ],
    ids=["unknown", "twice", "of the text", "both", "just all"],
)
def test_of_very_many_problems_in_a_file_the_first_are_described_and_the_others_counted(
    tmp_path, lines, described, more
):
    errors = load_policy(write(tmp_path, WEB + lines)).errors
    if more:
        *errors, last = errors
        assert f"{more} more problems in this file; correct those above first" in str(last)
    assert len(errors) == described
    assert not any("more problems" in str(error) for error in errors)


# ── Anything at all ─────────────────────────────────────────────────────────────────────────────────────

LINES = [
    *WEB.splitlines(),
    *(SHIPPED / "defaults.yaml").read_text().splitlines(),
    *(SHIPPED / "web.yaml").read_text().splitlines(),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.sampled_from(LINES) | st.text(max_size=20), max_size=12),
    cut=st.integers(0, 400),
    noise=st.binary(max_size=3),
)
def test_whatever_the_text_there_is_a_policy_or_an_error_and_never_an_exception(tmp_path, lines, cut, noise):
    text = "\n".join(lines).encode("utf-8", "replace")
    path = write(tmp_path, text[:cut] + noise + text[cut:])
    loaded = load_policy(path)
    assert bool(loaded.policies) != bool(loaded.errors)
    for problem in (*loaded.errors, *loaded.warnings):
        assert "\n" not in str(problem)
        assert problem.severity in set(Severity)
    assert all(isinstance(policy, Policy) for policy in loaded.policies)
