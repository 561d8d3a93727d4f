"""Checks which of the places in the settings a policy refers to.

It is separate from the other checks because the answer depends on the settings of a daemon, which a policy does not know.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from autoscaler.config.finding import Finding
from autoscaler.config.policy import Policy
from autoscaler.words import some


def check_place(policy: Policy, names: Collection[str]) -> tuple[Finding, ...]:
    """Return a finding unless the policy names an existing place, or names none where there is only one.

    Args:
        policy: The policy to check.
        names: Names of the places; a single place without a name has an empty one.
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
