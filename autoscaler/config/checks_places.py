"""Checks which of the places in the settings a policy refers to.

Why beside the other checks: what is right depends on the settings of a daemon, which a policy alone does not know.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from autoscaler.config.finding import Finding
from autoscaler.config.policy import Policy
from autoscaler.words import some


def check_place(policy: Policy, names: Collection[str]) -> tuple[Finding, ...]:
    """That a policy names one of several places, and none that there is not.

    Args:
        policy: Which.
        names: Of the places; the only one of settings without such names has an empty one.
    """
    name, known = policy.provider, some(sorted(names), 10)
    if name is None:
        if len(names) == 1:
            return ()
        advice = f"write `provider: NAME` in its policy, one of {known}"
        return (Finding((("provider",), ("fleet",)), "the settings have several providers", advice),)
    if name in names:
        return ()
    advice = f"write a table [providers.{name}], or leave `provider` out"
    if any(names):
        near = difflib.get_close_matches(name, names, 1)
        advice = f"did you mean {near[0]}? They have {known}" if near else f"they have {known}"
    return (Finding((("provider",),), f"`provider` is {name}, which is not in the settings", advice),)
