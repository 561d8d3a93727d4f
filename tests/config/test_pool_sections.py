"""The sections for balancers and the pool: what is refused, and what is warned about, with its position."""

import pytest

from autoscaler.config.checks_pool import check_pool
from autoscaler.config.documents import Severity
from autoscaler.config.policy import policy_from

BASE = {
    "fleet": "web",
    "signal": {
        "kind": "total",
        "source": "haproxy",
        "haproxy": {"sockets": ["/run/h.sock"], "backend": "web"},
    },
    "vm": {"capacity": "100/s"},
    "bounds": {"maximum": 5},
}
HAPROXY = {"sockets": ["/run/h.sock"], "backend": "web"}
PROVISION = {"launch_template": "web", "maximum": 9}
WINDOW = {"from": "02:00", "to": "05:00"}

WRONG = {
    "two balancers": (
        {"balancer": {"haproxy": HAPROXY, "command": {"run": ["/x"]}}},
        "haproxy and command are given",
    ),
    "no balancer": ({"balancer": {}}, "none is given"),
    "no template": ({"refill": {}}, "no section `provision`"),
    "too many shares": (
        {"provision": PROVISION, "refill": {"weights": [1, 2]}},
        "2 shares for 1 machine types",
    ),
    "a share below zero": (
        {"provision": {**PROVISION, "types": ["b"], "vm_type": "a"}, "refill": {"weights": [2, -1]}},
        "a share is below zero",
    ),
    "no share": ({"provision": PROVISION, "refill": {"weights": [0]}}, "none above zero"),
    "refresh of nothing": ({"freshness": {"refresh": {}}}, "no section `refill`"),
    "two hooks": (
        {"freshness": {"exercise": {"command": {"run": ["/x"]}, "ssm": {}}}},
        "has both `command` and `ssm`",
    ),
    "no such zone": (
        {"freshness": {"exercise": {"windows": [{**WINDOW, "time_zone": "Europe/Berln"}]}}},
        "Europe/Berln",
    ),
    "no zone at all like it": (
        {"freshness": {"exercise": {"windows": [{**WINDOW, "time_zone": "x" * 70}]}}},
        f"there is no time zone `{'x' * 60}`",
    ),
    "an empty window": (
        {"freshness": {"exercise": {"windows": [{"from": "02:00", "to": "02:00"}]}}},
        "begins where it ends",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_is_an_error_with_advice(case):
    changes, said = WRONG[case]
    (finding,) = [f for f in check_pool(policy_from(BASE | changes), 10.0) if f.severity is Severity.ERROR]
    assert said in finding.message
    assert finding.advice


def test_a_drain_that_no_vm_can_pass_is_warned_of():
    changes = {"balancer": {"haproxy": HAPROXY}, "drain": {"timeout": "29s"}}
    (finding,) = check_pool(policy_from(BASE | changes), 10.0)
    assert (finding.severity, finding.advice) == (Severity.WARNING, "write at least 1m")
    assert list(check_pool(policy_from(BASE | changes | {"drain": {"timeout": "30s"}}), 10.0)) == []
    assert list(check_pool(policy_from(BASE | {"balancer": {"haproxy": HAPROXY}}), 10.0)) == []


def test_a_whole_section_of_each_is_accepted():
    changes = {
        "balancer": {"target_group": {"arn": "arn:aws:elasticloadbalancing:x"}},
        "provision": {**PROVISION, "vm_type": "a", "types": ["b"]},
        "refill": {"weights": [1, 0], "trim_after": "2d"},
        "freshness": {
            "max_age": "30d",
            "refresh": {"windows": [WINDOW]},
            "exercise": {"every": "7d", "windows": [WINDOW], "ssm": {"document": "patch", "timeout": "15m"}},
        },
        "warm_pool": {"hibernate": {"renew_after": "40d"}},
    }
    assert list(check_pool(policy_from(BASE | changes), 10.0)) == []
