"""What a policy measures: when what was learned of demand, and what the journal recorded of it, still holds.

Rules of this file: nothing but the policy is looked at.
"""

from __future__ import annotations

import hashlib
import json

from autoscaler.config.policy import Policy

_HOW_IT_IS_READ = {
    "timeout_s", "lag_s", "delay_s", "period_s", "url", "sockets", "join", "queue_within_s", "wake", "vms_by",
    "fleet_label", "vm_label", "headers", "bearer_token_file", "basic_auth", "tls", "history_query",
}  # fmt: skip
"""Fields of sources that say how a source is reached and read, not what its numbers mean."""


def measure(policy: Policy) -> tuple[object, ...]:
    """Return a key of what a policy measures: what was learned of demand holds for every policy with an equal key."""
    signal = policy.signal
    section = getattr(signal, signal.source)
    if signal.source == "prometheus" and section is not None:
        section = (section.query, section.select, section.join)  # not the address or credentials
    return (signal.kind, signal.source, section, _capacity_per_s(policy))


def meaning(policy: Policy) -> str:
    """Return a digest of what recorded demand means: it is equal for policies whose demand may be compared.

    It is coarser than `measure`: how a source is reached does not matter, and neither do fields at their defaults, so
    that it stays the same when a version adds a field.
    """
    signal = policy.signal
    section = getattr(signal, signal.source)
    fields = {}
    if section is not None:
        fields = section.model_dump(mode="json", exclude=_HOW_IT_IS_READ, exclude_defaults=True)
    told = json.dumps([signal.kind, signal.source, fields, _capacity_per_s(policy)], sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()


def _capacity_per_s(policy: Policy) -> float | None:
    """Return the capacity of a VM if demand depends on it: utilisation is converted to work with it."""
    return policy.vm.capacity_per_s if policy.signal.kind == "utilisation" else None
