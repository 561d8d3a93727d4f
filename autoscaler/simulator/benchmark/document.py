"""Benchmark results as JSON: `results.json`, from which a later run can take the peers' results.

Rules of this file: it computes nothing that is not in the bouts. Infinite and unknown numbers become null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from autoscaler.errors import ConfigError
from autoscaler.simulator.benchmark.curves import LEVELS, VOLUME_SHARES, Curve
from autoscaler.simulator.benchmark.known_law import LawBooks
from autoscaler.simulator.benchmark.trace_run import Bout, FleetResult, PoolVerdict, Promise, Yardstick
from autoscaler.simulator.benchmark.warm_pools import Books

VERSION = 1
_RULES = "peak", "for_a_day", "break_even", "foreseen"
_YARDSTICKS = {*_RULES, "lawful"}
RESULTS_JSON = "results.json"
_LEFT = f"the {RESULTS_JSON} that `autoscaler benchmark --out` has left, or its folder"


def document_of(
    bouts: Iterable[Bout], *, partial: bool = False, failed: Sequence[str] = ()
) -> dict[str, Any]:
    """Convert results to JSON values.

    Args:
        bouts: Results of the traces.
        partial: Whether the run was interrupted.
        failed: Sentences about traces without a result.
    """
    return {
        "version": VERSION,
        "partial": partial,
        "failed": list(failed),
        "levels": list(LEVELS),
        "shares": list(VOLUME_SHARES),
        "traces": [
            {
                "trace": bout.trace,
                "digest": bout.digest,
                "tick_s": bout.tick_s,
                "scored_days": bout.scored_days,
                "long": bout.long,
                "fleets": [_fleet(fleet) for fleet in bout.fleets],
            }
            for bout in bouts
        ],
    }


def _fleet(fleet: FleetResult) -> dict[str, Any]:
    return {
        "vms": fleet.size,
        "clairvoyant": asdict(fleet.clairvoyant),
        "rules": {
            key: {
                "knob": curve.knob,
                "values": list(curve.values),
                "unserved": curve.unserved.tolist(),
                "cost": curve.cost.tolist(),
                "starts": curve.starts.tolist(),
                "turns": curve.turns.tolist(),
                "late_unserved": curve.late_unserved.tolist(),
                "regret": list(fleet.regrets[key]),
                "volume": fleet.volumes[key],
            }
            for key, curve in fleet.curves.items()
        },
        "promises": {key: [asdict(each) for each in given] for key, given in fleet.promises.items()},
        "warm_pools": {key: asdict(pool) for key, pool in fleet.warm_pools.items()},
        "coverage": {key: list(shares) for key, shares in fleet.coverage.items()},
    }


def read_bouts(path: Path) -> tuple[Bout, ...]:
    """Read the results of an earlier run.

    Args:
        path: Its `results.json`, or the folder that contains it.

    Raises:
        ConfigError: The file cannot be read, is not JSON, or was written by another version.
    """
    file = path / RESULTS_JSON if path.is_dir() else path
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; name {_LEFT}") from None
    except ValueError:
        raise ConfigError(f"{file} is not JSON; name {_LEFT}") from None
    if not isinstance(found, dict) or any(
        found.get(key) != mine
        for key, mine in (("version", VERSION), ("levels", list(LEVELS)), ("shares", list(VOLUME_SHARES)))
    ):
        raise ConfigError(f"{file} was not written by this version; run the benchmark without it once")
    return tuple(_bout_from(each) for each in found["traces"])


def _bout_from(document: Mapping[str, Any]) -> Bout:
    return Bout(
        document["trace"],
        document["digest"],
        document["tick_s"],
        document["scored_days"],
        document["long"],
        tuple(_fleet_from(each) for each in document["fleets"]),
    )


def _fleet_from(document: Mapping[str, Any]) -> FleetResult:
    rules = document["rules"]
    return FleetResult(
        document["vms"],
        Yardstick(*(tuple(document["clairvoyant"][name]) for name in ("cost", "starts", "front"))),
        {key: _curve_from(key, rule) for key, rule in rules.items()},
        {key: tuple(_numbers(rule["regret"], math.inf)) for key, rule in rules.items()},
        {key: rule["volume"] for key, rule in rules.items()},
        {key: tuple(map(_promise_from, promises)) for key, promises in document["promises"].items()},
        # Verdicts from before a yardstick existed are dropped: their entrants run again anyway.
        {key: _pool_from(pool) for key, pool in document["warm_pools"].items() if pool.keys() >= _YARDSTICKS},
        {key: tuple(_numbers(shares, math.nan)) for key, shares in document.get("coverage", {}).items()},
    )


def _pool_from(document: Mapping[str, Any]) -> PoolVerdict:
    books = {name: Books(**document[name]) for name in ("own", *_RULES)}
    lawful = None if document["lawful"] is None else LawBooks(**document["lawful"])
    return PoolVerdict(**{**document, **books, "lawful": lawful})


def _promise_from(document: Mapping[str, Any]) -> Promise:
    unserved, late = _numbers([document["unserved"], document["late_unserved"]], math.nan)
    return Promise(document["promised"], unserved, late, document["cost"])


def _curve_from(key: str, document: Mapping[str, Any]) -> Curve:
    return Curve(
        key,
        document["knob"],
        tuple(document["values"]),
        np.array(_numbers(document["unserved"], math.nan)),
        np.array(_numbers(document["cost"], math.nan)),
        np.array(document["starts"], np.int64),
        np.array(document["turns"], np.int64),
        np.array(_numbers(document["late_unserved"], math.nan)),
    )


def _numbers(values: Sequence[float | None], missing: float) -> list[float]:
    return [missing if value is None else value for value in values]
