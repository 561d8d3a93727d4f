"""The fleets of long lives: the shipped policies on a small scale, with every optional feature switched on.

Rules of this file: values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autoscaler.config.documents import read_document
from autoscaler.config.policy import Policy, policy_from

TYPES = ("m7i.large", "m7i.xlarge")
VMS = 8
MOST = 12
DRAIN_S, HOOK_S = 120.0, 40.0
POLICIES = Path(__file__).resolve().parents[2] / "policies"
BALANCED = {"haproxy": {"sockets": ["/run/haproxy.sock"], "backend": "web"}}
EXERCISED = {
    "exercise": {"every": "2h", "command": {"run": ["/bin/check"], "timeout": "5m"}},
    "refresh": {"share": "25%"},
}
REFILLED = {"calm": "2m", "at_once": 2, "timeout": "15m", "trim_after": "2h"}
SHARED = [{"name": "all", "fleets": ["office", "batch"], "most_vms": 14}]

CHANGES: Mapping[str, dict[str, object]] = {
    "web": {
        "vm": {"weights": [{"type": TYPES[1], "weight": 2.0}], "types": list(TYPES)},
        "freshness": EXERCISED,
        "refill": REFILLED,
    },
    "api": {
        "balancer": BALANCED,
        "drain": {"timeout": "2m", "on_timeout": "return"},
        "freshness": EXERCISED,
        "refill": REFILLED,
        "guards": {"hands_off": "10m"},
    },
    "batch": {
        "warm_pool": {"hibernate": {"start_time": "20s"}, "minimum": 1},
        "freshness": {"exercise": {"every": "3h"}},
    },
    "event": {
        "balancer": BALANCED,
        "drain": {"timeout": "2m", "on_timeout": "stop"},
        "warm_pool": {"minimum": 3},
        "schedule": [{"name": "sale", "from": "09:50", "to": "10:30", "at_least": 6}],
        "freshness": EXERCISED,
    },
    "office": {
        "balancer": BALANCED,
        "drain": {"timeout": "2m"},
        "guards": {"stop_share": "50%"},
        "refill": REFILLED,
    },
}
"""What is switched on in each of the shipped policies."""


def policy_of(name: str, **changed: object) -> Policy:
    """A shipped policy, adapted to small fleets, that acts and has the optional features."""
    data: dict[str, object] = {}
    own = {
        "act": True,
        "signal": {"kind": "total", "source": "trace", "max_age": "60s", "trace": {}, "scrape": None},
        "readiness": {"probe": "status_checks", "url": None},
        "bounds": {"maximum": VMS},
        "provision": {"launch_template": name, "maximum": MOST},
        "prices": {"in_service": "0.1/h", "stopped": "0.005/h", "start": 0, "provision": 0},
        "shared": SHARED,
    }
    written = read_document(POLICIES / f"{name}.yaml").data
    for part in (read_document(POLICIES / "defaults.yaml").data, written, own, CHANGES[name], changed):
        for key, value in part.items():
            known = data.get(key)
            data[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return policy_from(_without_none(data))


def _without_none(data):
    if not isinstance(data, dict):
        return data
    return {key: _without_none(value) for key, value in data.items() if value is not None}
