"""Checks of what a policy allows the daemon to learn.

The rules of `checks` apply.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoscaler.config.finding import Finding
from autoscaler.config.policy import Policy
from autoscaler.ports.sources import ADDRESS


def check_kind(policy: Policy) -> Iterator[Finding]:
    """Yield findings about the kind of signal: fields that it needs or excludes; also machine types that are listed twice."""
    signal = policy.signal
    if signal.kind == "concurrency" and signal.in_flight is None:
        yield Finding(
            (("signal", "kind"),),
            "kind concurrency needs `signal.in_flight`",
            "write how much a VM may have in flight while it meets its objective, for example `in_flight: 50`",
        )
    if signal.kind != "concurrency" and signal.in_flight is not None:
        yield Finding(
            (("signal", "in_flight"), ("signal", "kind")),
            f"`signal.in_flight` is for kind concurrency, but `signal.kind` is {signal.kind}",
            "remove it, or write `kind: concurrency`",
        )
    types = [each.type for each in policy.vm.weights]
    if twice := sorted({name for name in types if types.count(name) > 1}):
        yield Finding(
            (("vm", "weights"),), f"`vm.weights` gives type {twice[0]} twice", "leave one of the two"
        )
    if signal.kind in ("concurrency", "queue") and signal.source == "trace":
        yield Finding(
            (("signal", "source"), ("signal", "kind")),
            f"a trace holds work per second, and kind {signal.kind} is none",
            "write `kind: throughput` or `kind: total` to play a recording",
        )


def check_learning(policy: Policy) -> Iterator[Finding]:
    """Yield findings about what cannot be learned from the policy's signal."""
    kind = policy.signal.kind
    if policy.vm.learn_capacity is not None and kind != "throughput":
        yield Finding(
            (("vm", "learn_capacity"), ("signal", "kind")),
            f"`vm.learn_capacity` needs the work of each VM, and `signal.kind` {kind} does not measure it",
            "remove `vm.learn_capacity`, or measure throughput",
        )
    learns = policy.vm.learn_capacity
    if learns is not None and ADDRESS not in learns.url:
        yield Finding(
            (("vm", "learn_capacity", "url"), ("vm", "learn_capacity")),
            "utilisation is read from every VM, but `vm.learn_capacity.url` has no {address}",
            "write for example http://{address}:9100/metrics",
        )
