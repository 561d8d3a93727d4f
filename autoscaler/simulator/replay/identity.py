"""The identity of a run: digests of everything that goes into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from autoscaler.config.policy import Policy
from autoscaler.config.rendering import effective_yaml
from autoscaler.simulator.replay.timeline import RunIdentity
from autoscaler.traces.trace import Trace


def identity_of(policy: Policy, trace: Trace, plant: Mapping[str, Any], seed: int) -> RunIdentity:
    """Return the identity of a run.

    Args:
        policy: The policy as given, before it was fitted to a simulation.
        trace: The trace as it is played.
        plant: Settings of the simulated VMs and provider, as plain values.
        seed: Seed of all randomness.
    """
    return RunIdentity(
        trace=trace.digest,
        policy=policy_digest(policy),
        plant=hashlib.sha256(json.dumps(plant, sort_keys=True, default=str).encode()).hexdigest(),
        code=version("vm-autoscaler"),
        seed=seed,
    )


def policy_digest(policy: Policy) -> str:
    """Return the SHA-256 of the effective policy."""
    return hashlib.sha256(effective_yaml(policy).encode()).hexdigest()
