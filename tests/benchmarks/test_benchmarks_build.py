"""Every benchmark can still be built from the code of today, on sizes that take no time.

What they measure is not looked at here: a benchmark that nobody runs for a week must not have stopped working meanwhile.
"""

import importlib
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from autoscaler.clock import run_virtual
from autoscaler.config.policy import policy_from

NAMES = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py")
    if not path.stem.startswith("__")
)


def benchmark_called(name):
    return importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in {"calibration", "forecast_library", "quiet"}]
)
def test_has_something_to_run(name):
    assert callable(benchmark_called(name).run)


# ── built and run, small ────────────────────────────────────────────────────────────────────────────────────


def core_tick(module, patch):
    patch(module, "WARM_UP", 2)
    patch(module, "TICKS", 3)
    assert {len(times) for times in module.live(2).values()} == {3}
    assert len(module.swept(module.plain_reactive(2))) == 3


def sweep(module, patch):
    patch(module, "DAYS", 1)
    patch(module, "VARIANTS", 3)
    assert module.year_of(3)[0] > 0.0
    for kind in ("quantile", "objective"):
        assert module.per_tick(kind, 0.02, 2)[1] > 0.0


def fold(module, patch):
    patch(module, "READINGS", 20)
    patch(module, "FLEETS", (1, 3))
    patch(module, "REPEATS", 1)
    assert len(module.run()) == 6


def ledger(module, patch):
    patch(module, "LANES", 3)
    sums = module.Sums(module.TICK_S, np.full(3, module.VM))
    for shared in (True, False):
        sums.add(module.block(shared=shared))
    assert sums.ticks == 2 * module.TICKS


def forecast(module, patch):
    del patch
    assert len(module.step_times(2, 8)) == len(module.learn_times(2, 8)) == 6


def objective(module, patch):
    patch(module, "WARM_UP", 2)
    patch(module, "TICKS", 31)
    times, rest, spent = module.decided(4, 2)
    assert len(times) == len(rest) == 31
    assert (rest > 0.0).all()
    assert set(spent) == {name for name, _, _ in module.PARTS} > module.CONTEST


def clairvoyant(module, patch):
    patch(module, "DAYS", 1)
    assert len(module.demand()) == 1440
    (found,) = module.cheapest(module.demand()[:60], module.TERMS, (1.0,))
    assert math.isfinite(found.cost)


def loop(module, patch):
    del patch
    cases = [module.Case("an idle fleet", 1, 3, 3, "idle"), module.Case("two busy fleets", 2, 3, 3)]
    cases += [replace(case, fleets=2, vms=3, ticks=3) for case in (module.ACTING, module.IN_SHADOW)]
    for case in cases:
        traces = {f"fleet-{at}": trace for at, trace in enumerate(module._traces(case))}
        assert run_virtual(partial(module._seconds, case, traces)) > 0.0


def traces(module, patch):
    patch(module, "ROWS", 40)
    patch(module, "ROUNDS", 1)
    assert len(module.run()) == 4


def policies_of_others(module, patch):
    """Benchmarks that start processes: their policies at least are policies."""
    del patch
    given = {
        "replay": lambda: [
            policy_from(YAML(typ="safe").load(module.POLICY.format(rule=rule)))
            for rule in module.RULES.values()
        ],
        "push": lambda: [policy_from(module.POLICY)],
        "reaction": lambda: [
            policy_from(module._policy(source, "http://127.0.0.1:1")) for source in ("scrape", "prometheus")
        ],
        "scrape": lambda: [module._policy("web")],
        "starts": lambda: [module._policy("web", 5)],
    }[module.__name__.rpartition(".")[2]]
    assert all(policy.fleet == "web" for policy in given())


BUILT = {
    **{
        each.__name__: each
        for each in (core_tick, sweep, fold, ledger, forecast, objective, clairvoyant, loop, traces)
    },
    **dict.fromkeys(("push", "reaction", "replay", "scrape", "starts"), policies_of_others),
}


@pytest.mark.parametrize("name", BUILT)
def test_is_built_and_runs_small(name, monkeypatch):
    BUILT[name](benchmark_called(name), monkeypatch.setattr)
