"""The policies under test: policy YAML with one field varied, and what else is judged about each.

The benchmark replaces the signal, VMs, bounds and prices of every policy by its own, so that all run the same fleet. What
remains of an entrant is how it asks for VMs.

Rules of this file: values in, policies out. Every policy is validated as a policy file would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoscaler.config.loading import require_policy
from autoscaler.config.policy import Policy, policy_from
from autoscaler.config.rendering import effective_data
from autoscaler.errors import ConfigError
from autoscaler.simulator.benchmark.conditions import PROVISION_S, Fleet, finer
from autoscaler.simulator.benchmark.warm_pools import STOPPED_SHARE
from autoscaler.simulator.lanes.plant_settings import PlantSettings
from autoscaler.simulator.search.axes import read_axis
from autoscaler.simulator.search.variants import Axis, Base

TERMS = ("fleet", "signal", "vm", "bounds", "prices", "provision")
"""Policy sections that the benchmark replaces by its own."""

USUAL_TICK_S = 60.0


@dataclass(frozen=True, slots=True)
class Entrant:
    """A policy with one varied field, its knob.

    Attributes:
        key: Key for programs.
        name: Name for people.
        what: One sentence on how it asks for VMs.
        data: The policy as in YAML, without the sections in `TERMS`.
        settings: The settings to run, each a mapping from dotted field paths to values as written in YAML.
        knob: The varied field, as text for people.
        promises: Settings that promise a served share. They are judged by what was served after the first week.
        warm_pool: The setting whose warm pool is judged. Empty if none is.
    """

    key: str
    name: str
    what: str
    data: Mapping[str, Any]
    settings: tuple[Mapping[str, object], ...]
    knob: str
    promises: tuple[Mapping[str, object], ...] = field(default=())
    warm_pool: Mapping[str, object] = field(default_factory=dict)

    def policies(self, fleet: Fleet, settings: Sequence[Mapping[str, object]]) -> list[Policy]:
        """Return one policy per setting, on the given fleet.

        Raises:
            ConfigError: A setting is invalid.
        """
        own = {key: value for key, value in self.data.items() if key not in TERMS}
        base = Base(policy_from({**own, **fleet.data()}), fleet.plant, fleet.tick_s)
        return [base.variant(values).policy for values in settings]

    def pool_policy(self, fleet: Fleet) -> Policy:
        """Return the policy whose warm pool is judged. It may provision VMs, and stopped VMs and provisioning have prices.

        Raises:
            ConfigError: The setting is invalid.
        """
        prices = {
            "prices.stopped": f"{STOPPED_SHARE:g}/h",
            "prices.provision": PROVISION_S / 3600.0,
            "provision": {"launch_template": "benchmark", "maximum": fleet.vms},
        }
        return self.policies(fleet, [{**self.warm_pool, **prices}])[0]

    def promised(self, values: Mapping[str, object]) -> str:
        """Return the served share that one of `promises` asks for, as text for people."""
        (said,) = values.values()
        return str(said["served"] if isinstance(said, Mapping) else said)

    def labels(self) -> list[str]:
        """Return the values of each setting as text for people."""
        return [", ".join(str(value) for value in values.values()) for values in self.settings]


SHORTAGE_PRICES = finer(
    (
        1.3,
        2,
        3,
        4.5,
        7,
        11,
        17,
        26,
        40,
        65,
        110,
        180,
        300,
        500,
        900,
        1500,
        2500,
        4500,
        8000,
        15_000,
        40_000,
        150_000,
    )
)
"""Prices of the unserved work of one VM, relative to the price of that VM: the knob of a policy with an objective."""

POOL_SHORTAGE_PRICE = 40.0
"""The price of shortage at which warm pools are judged, relative to the price of a VM in service."""

SERVED = (0.99, 0.997, 0.999)
"""Served shares that policies promise."""


def ours() -> Entrant:
    """Return this program's policy with nothing but an objective. Its knob is the price of shortage."""
    path = "objective.shortage_price"
    return Entrant(
        "ours", "this program", "Fleets sized by the price of shortage and the whole law of demand to come.",
        {"objective": {"shortage_price": f"{SHORTAGE_PRICES[0]:g}/h"}},
        tuple({path: f"{price:g}/h"} for price in SHORTAGE_PRICES),
        "price of shortage",
        tuple({"objective": {"served": f"{share:.1%}"}} for share in SERVED),
        {path: f"{POOL_SHORTAGE_PRICE:g}/h"},
    )  # fmt: skip


def from_file(path: Path, vary: str) -> Entrant:
    """Read a policy file and make one of its fields the knob.

    Args:
        path: The policy file, read over the `defaults.yaml` beside it.
        vary: The field and its values, as `sweep --vary` takes them.

    Raises:
        ConfigError: The policy or the values are invalid.
    """
    policy = require_policy(path)
    data = {key: value for key, value in effective_data(policy).items() if key not in TERMS}
    axis = read_axis(vary, Base(policy, PlantSettings(), USUAL_TICK_S))
    if not isinstance(axis, Axis):
        raise ConfigError(
            f"{vary!r} is a range without a number of values; write for example {axis.path}=1..9/5"
        )
    return Entrant(
        policy.fleet,
        f"policy {policy.fleet}",
        f"The policy of {path.name}.",
        data,
        tuple({axis.path: value} for value in axis.values),
        axis.path,
    )
