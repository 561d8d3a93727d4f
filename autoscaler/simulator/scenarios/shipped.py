"""The shipped example policies, each on generated traffic of its kind, beside peers and hindsight: a page of results.

The page shows what to expect of a copy of a policy, and how much of that the policy itself achieves. The traffic comes from
the recipe with the policy's name, so that anybody can make it again (`autoscaler trace synth`). The page says that it is
generated.

Rules of this file: it runs the replay of `autoscaler replay` and nothing of its own. Figures are for the time after the
warm-up. A section of the page depends only on one policy, its defaults and its recipe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoscaler.config.compiling_objective import objective_in_words
from autoscaler.config.loading import DEFAULTS, require_policy
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.score import FIGURES
from autoscaler.simulator.replay.preparing import Replay, Wanted, prepare
from autoscaler.simulator.replay.replaying import rivals_of
from autoscaler.simulator.report.card import Entry
from autoscaler.simulator.report.wording import Unit, shown, span
from autoscaler.simulator.traffic.parts import generate
from autoscaler.simulator.traffic.recipe import read_recipe

WARM_UP_S = 3 * 86_400.0
"""Seconds that policies learn from before they are judged."""

_SHOWN = ("unserved_share", "regret", "longest_episode_s", "starts_per_day")
_UNITS = {figure.key: figure.unit for figure in FIGURES}
_LABELS = {figure.key: figure.label for figure in FIGURES}
_HEAD = """# Results

Each policy of this folder on generated traffic of its kind, compared with the rules that others use and with hindsight. Written by

    autoscaler policy results policies

and kept current by a test. The recipes are in [../simulations/recipes](../simulations/recipes), under the names of the policies. The
first three days are only learned from, not judged. All rules get the same demand and the same luck. Peers aim at 30 % headroom and
are not tuned, so this shows what to expect of a policy as it is, not which rule is best: for that, see `autoscaler benchmark`. *Cost*
is in money at the policy's own prices, disks of stopped VMs included. *Regret* is the cost beyond the least possible with as much
work unserved; hindsight has none, and neither has a rule that served nothing. Rules that follow the utilisation of VMs cannot start
from zero. Ticks are two minutes long here, longer than most people would choose.
"""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A policy and the recipe that it is replayed on."""

    policy: Path
    recipe: Path

    @property
    def name(self) -> str:
        """Name of the policy's file without its ending."""
        return self.policy.stem


def shipped_in(folder: Path, recipes: Path) -> tuple[Shipped, ...]:
    """List the policies of a folder with their recipes, by name.

    Raises:
        ConfigError: There is no policy, or a policy has no recipe.
    """
    files = sorted(file for file in folder.glob("*.yaml") if file.name != DEFAULTS)
    if not files:
        raise ConfigError(f"{folder}: there is no policy (*.yaml) in this folder")
    for file in files:
        if not (recipes / file.name).is_file():
            raise ConfigError(
                f"{file}: there is no recipe {recipes / file.name} of the traffic it is for; write one as for "
                "`autoscaler trace synth`"
            )
    return tuple(Shipped(file, recipes / file.name) for file in files)


def section(shipped: Shipped) -> str:
    """Return one policy's part of the page, as Markdown. This takes some seconds.

    Raises:
        ConfigError: The policy is invalid, or lanes cannot express it.
        TraceError: The recipe is invalid.
    """
    policy, trace = require_policy(shipped.policy), generate(read_recipe(shipped.recipe))
    replay = prepare(policy, shipped.policy, trace, Wanted(warm_up_s=WARM_UP_S))
    entries = rivals_of(replay)
    if not entries:
        raise ConfigError(f"{shipped.policy}: lanes cannot express this policy, so it has no peers")
    return "\n".join(_lines(shipped, replay, entries))


def page(sections: Sequence[str]) -> str:
    """Return the whole page, as Markdown."""
    return "\n".join((_HEAD, *sections))


def _lines(shipped: Shipped, replay: Replay, entries: Sequence[Entry]) -> list[str]:
    always = next(entry for entry in entries if entry.key == "static_peak").values["cost"]
    judged_s = replay.span_s - replay.warm_up_ticks * replay.tick_s
    kind = " ".join(
        line.lstrip("# ").strip()
        for line in shipped.recipe.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    )
    lines = [
        f"## {shipped.name}",
        "",
        kind,
        "",
        f"The policy: {_in_words(replay)}. {replay.plant.vms} VMs exist, and {span(judged_s)} are judged.",
        "",
        f"| rule | cost | of always on | {' | '.join(_LABELS[key].lower() for key in _SHOWN)} |",
        f"|---|---:|---:|{'---:|' * len(_SHOWN)}",
    ]
    for entry in entries:
        name = f"**{shipped.name}.yaml**" if entry.key == "policy" else entry.name
        cost = entry.values["cost"]
        cells = [
            _three_digits(cost),
            shown(cost / always, Unit.SHARE),
            *(_cell(entry.values.get(key, math.nan), _UNITS[key]) for key in _SHOWN),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _in_words(replay: Replay) -> str:
    """Describe how the policy arrives at its numbers, without its name."""
    objective = objective_in_words(replay.policy).partition(": ")[2]
    # Objective and replay may both begin by naming the kind of policy, which is to appear only once.
    rest = [each for each in replay.in_words.split("; ") if not (objective and objective.startswith(each))]
    return "; ".join(filter(None, (objective, *rest)))


def _three_digits(cost: float) -> str:
    """Format a cost with three digits. More digits would reflect the machine, not the policy."""
    return f"{cost:,.{max(2 - math.floor(math.log10(cost)), 0)}f}" if cost > 0 else "0"


def _cell(value: float, unit: Unit) -> str:
    return "-" if math.isnan(value) else shown(value, unit)
