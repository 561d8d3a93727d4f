"""Quantities and policies as text: what is printed loads again as the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML

from autoscaler.config.loading import require_policy
from autoscaler.config.messages import field_at
from autoscaler.config.policy import Policy, policy_from
from autoscaler.config.quantities import (
    CHANGE,
    CLOCK_TIME,
    DAYS_OF_WEEK,
    DURATION,
    METRIC,
    PERCENT,
    PRICE,
    WORK,
    Change,
    MetricSelector,
    Quantity,
)
from autoscaler.config.rendering import effective_data, effective_yaml, policy_json_schema
from autoscaler.config.section import Section

FULL = {
    "fleet": "web",
    "act": True,
    "signal": {
        "kind": "throughput",
        "source": "scrape",
        "scrape": {"metric": 'requests_total{code="200",zone="a"}', "type": "counter"},
        "trace": {"file": "/traces/day.csv", "start_at": "2026-03-01T08:00:00+00:00", "scale_to_vms": 50},
    },
    "vm": {"capacity": "120.5/s", "start_time": "1m30s"},
    "bounds": {"minimum": 0, "maximum": 10},
    "reactive": {"headroom": "33.3%"},
    "forecast": {},
    "steps": [{"above": "80%", "change": "+10%"}, {"below": "20%", "change": -1}],
    "schedule": [{"name": "day", "days": "mon-wed,sat", "from": "08:00", "to": "24:00", "at_least": 3}],
    "provision": {"launch_template": "lt-1", "version": "7", "maximum": 12},
    "prices": {"in_service": "0.096/h", "start": 0.001},
}


@pytest.mark.parametrize("data", [FULL, {**FULL, "reactive": "off", "steps": [], "provision": "off"}])
def test_the_effective_policy_loads_again_to_the_same_policy(tmp_path, data):
    policy = policy_from(data)
    path = tmp_path / "web.yaml"
    path.write_text(effective_yaml(policy))
    assert require_policy(path) == policy


def test_the_effective_policy_has_every_field():
    def expect(data, model):
        assert list(data) == [info.alias for info in model.model_fields.values()]

    data = effective_data(policy_from(FULL))
    expect(data, Policy)
    for name in (
        "signal",
        "vm",
        "guards",
        "warm_pool",
        "prices",
        "readiness",
        "reactive",
        "forecast",
        "provision",
    ):
        field = Policy.model_fields[name].annotation
        model = next(
            m
            for m in (field, *getattr(field, "__args__", ()))
            if isinstance(m, type) and issubclass(m, Section)
        )
        expect(data[name], model)
    assert data["guards"]["stabilisation"] == "5m"
    assert data["warm_pool"]["memory"] == "1d"


def test_every_field_has_a_description_and_a_key_without_its_unit():
    def walk(model):
        for name, info in model.model_fields.items():
            assert info.description, f"{model.__name__}.{name}"
            assert info.description.endswith("."), f"{model.__name__}.{name}"
            assert not info.alias.endswith(("_s", "_per_h")), info.alias
            for part in (info.annotation, *getattr(info.annotation, "__args__", ())):
                if isinstance(part, type) and issubclass(part, Section):
                    walk(part)

    walk(Policy)
    assert field_at(("guards", "rate_in", "per")) is not None


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (DURATION, "1h30m", 5400.0),
        (DURATION, "1.5h", 5400.0),
        (DURATION, "500ms", 0.5),
        (DURATION, "2 d", 172800.0),
        (DURATION, 0, 0.0),
        (PERCENT, "30%", 0.3),
        (PERCENT, "12.5 %", 0.125),
        (PERCENT, "0%", 0.0),
        (WORK, "120/s", 120.0),
        (PRICE, ".096/h", 0.096),
        (CHANGE, 2, Change(2, 0.0)),
        (CHANGE, "+2", Change(2, 0.0)),
        (CHANGE, "-10%", Change(0, -0.1)),
        (METRIC, "up", MetricSelector("up")),
        (METRIC, 'a:b{x="1", y=""}', MetricSelector("a:b", (("x", "1"), ("y", "")))),
        (DAYS_OF_WEEK, "fri-mon", (0, 4, 5, 6)),
        (DAYS_OF_WEEK, "Mon, wed", (0, 2)),
        (DAYS_OF_WEEK, "daily", (0, 1, 2, 3, 4, 5, 6)),
        (CLOCK_TIME, "24:00", None),
    ],
)
def test_reading(kind, text, value):
    assert kind.validate(text) == value
    assert kind.validate(kind.write(value)) == value


@given(st.integers(0, 10**7))
def test_whole_seconds_survive_writing(seconds):
    assert DURATION.validate(DURATION.write(float(seconds))) == seconds


@given(st.integers(0, 10_000))
def test_percents_written_by_people_survive(hundredths):
    value = PERCENT.validate(f"{hundredths / 100}%")
    assert PERCENT.validate(PERCENT.write(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-6, "0.000001/s"),
        (2.5e-5, "0.000025/s"),
        (1e9, "1000000000/s"),
        (1e16, "10000000000000000/s"),
        (0.1, "0.1/s"),
    ],
)
def test_small_and_large_numbers_are_written_as_people_write_them_and_read_again(value, text):
    assert WORK.write(value) == text
    assert WORK.validate(text) == value


def test_a_range_is_told_as_people_write_it():
    with pytest.raises(PydanticCustomError) as refused:
        Quantity(WORK, 1e-6, 1e9).validate("0/s")
    assert "0.000001/s to 1000000000/s" in str(refused.value.context)


@given(st.sets(st.integers(0, 6), min_size=1))
def test_days_survive_writing(days):
    chosen = tuple(sorted(days))
    assert DAYS_OF_WEEK.validate(DAYS_OF_WEEK.write(chosen)) == chosen


def test_the_schema_knows_every_key_and_closes_every_section():
    schema = policy_json_schema()
    assert set(schema["properties"]) == {info.alias for info in Policy.model_fields.values()}
    assert set(schema["required"]) == {"fleet", "signal", "vm", "bounds"}
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())
    assert {"const": "off"} in schema["properties"]["reactive"]["anyOf"]
    guards = schema["$defs"]["GuardsSection"]["properties"]
    assert guards["stabilisation"]["default"] == "5m"
    assert guards["stabilisation"]["x-range"] == "0s to 1d"
    assert guards["stabilisation"]["description"]
    assert "default" not in schema["properties"]["guards"]
    assert schema["$defs"]["ScheduleWindow"]["properties"]["days"]["default"] == "daily"


def test_yaml_of_other_tools_reads_what_is_printed():
    data = YAML(typ="safe").load(effective_yaml(policy_from(FULL)))
    assert data == effective_data(policy_from(FULL))
