"""Checks of limits that fleets share, which need all policies of a folder.

The rules of `checks` apply. Every finding points at the defaults, because the limits are written only there.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase

from autoscaler.config.documents import Severity, YamlPath
from autoscaler.config.finding import Finding
from autoscaler.config.policy import Policy
from autoscaler.config.quantities import PRICE
from autoscaler.config.sharing import SharedLimits


def check_shared(policies: Sequence[Policy], names: Collection[str]) -> Iterator[Finding]:
    """Yield findings about the groups of fleets in a folder, placed in its defaults.

    Args:
        policies: The usable policies; all have the same groups.
        names: All fleets of the folder, including those whose policy cannot be used.
    """
    groups = policies[0].shared if policies else ()
    for at, group in enumerate(groups):
        here: YamlPath = ("shared", at)
        if (group.most_vms, group.most_money_per_h, group.most_starts) == (None, None, None):
            yield Finding(
                (here,),
                f"the group {group.name} limits nothing",
                "write `most_vms`, `most_money` or `most_starts`",
            )
        if not group.fleets:
            yield Finding(((*here, "fleets"),), f"the group {group.name} has no fleets", "write their names")
        if group.name in {other.name for other in groups[:at]}:
            yield Finding(
                ((*here, "name"),), f"there are two groups {group.name}", "give each a name of its own"
            )
        yield from _check_names(group, here, groups[:at], names)
        mine = [policy for policy in policies if policy.group == group]
        yield from _check_floors(group, here, mine)
        yield from _check_objectives(here, mine)


def _check_names(
    group: SharedLimits, here: YamlPath, before: Sequence[SharedLimits], names: Collection[str]
) -> Iterator[Finding]:
    for at, pattern in enumerate(group.fleets):
        place: YamlPath = (*here, "fleets", at)
        found = [name for name in sorted(names) if fnmatchcase(name, pattern)]
        if not found:
            near = difflib.get_close_matches(pattern, sorted(names), 1)
            yield Finding(
                (place,),
                f"no policy of this folder is for a fleet `{pattern}`",
                f"did you mean `{near[0]}`?" if near else "remove it, or add the fleet's policy",
            )
        for name in found:
            other = next((earlier for earlier in before if earlier.has(name)), None)
            if other is not None:
                yield Finding(
                    (place,),
                    f"fleet `{name}` is in the group {other.name} already",
                    "keep a fleet in one group",
                )


def _check_floors(group: SharedLimits, here: YamlPath, policies: Sequence[Policy]) -> Iterator[Finding]:
    least = sum(policy.bounds.minimum for policy in policies)
    minimums = ", ".join(f"{policy.fleet} {policy.bounds.minimum}" for policy in policies)
    if group.most_vms is not None and least > group.most_vms:
        yield Finding(
            ((*here, "most_vms"),),
            f"the minimums of its fleets ({minimums}) are {least} VMs, and the group {group.name} may run {group.most_vms}",
            "raise `most_vms`, or lower `bounds.minimum` of a fleet",
        )
    if group.most_money_per_h is None:
        return
    at: YamlPath = (*here, "most_money")
    if free := [policy.fleet for policy in policies if policy.prices.in_service_per_h == 0.0]:
        yield Finding(
            (at,),
            f"what VMs of {', '.join(free)} cost is not known, so `most_money` cannot hold them",
            "write `prices: {in_service: 0.096/h}` in the fleet's policy",
        )
    money = sum(policy.bounds.minimum * policy.prices.in_service_per_h for policy in policies)
    if money > group.most_money_per_h:
        yield Finding(
            (at,),
            f"the minimums of its fleets ({minimums}) cost {PRICE.write(money)}, and the group {group.name} may cost "
            f"{PRICE.write(group.most_money_per_h)}",
            "raise `most_money`, or lower `bounds.minimum` of a fleet",
        )


def _check_objectives(here: YamlPath, policies: Sequence[Policy]) -> Iterator[Finding]:
    with_objective = [policy.fleet for policy in policies if policy.objective is not None]
    without = [policy.fleet for policy in policies if policy.objective is None]
    if with_objective and without:
        yield Finding(
            ((*here, "fleets"),),
            f"{', '.join(without)} have no objective, so what their VMs earn is taken from how busy they are, beside prices "
            f"of {', '.join(with_objective)}",
            "give all fleets of a group an objective, or none",
            Severity.WARNING,
        )
