"""Checks of balancer, refill and freshness: combinations that cannot work as written.

The rules of `checks` apply.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoscaler.config.documents import Severity, YamlPath
from autoscaler.config.finding import Finding, check_time_zone, seconds_text
from autoscaler.config.freshness import QuietWindow
from autoscaler.config.policy import Policy


def check_pool(policy: Policy, tick_s: float) -> Iterator[Finding]:
    """Yield all findings of `balancer`, `drain`, `refill` and `freshness`."""
    yield from _check_balancer(policy, tick_s)
    yield from _check_refill(policy)
    fresh = policy.freshness
    for key, section in (("refresh", fresh.refresh), ("exercise", fresh.exercise)):
        for at, window in enumerate(section.windows if section else ()):
            yield from _check_window(window, ("freshness", key, "windows", at))
    tried = fresh.exercise
    if tried is not None and tried.command is not None and tried.ssm is not None:
        yield Finding(
            (("freshness", "exercise", "ssm"),),
            "`freshness.exercise` has both `command` and `ssm`, but only one can be run",
            "keep one, and let it call the other",
        )
    if fresh.refresh is not None and policy.refill is None:
        yield Finding(
            (("freshness", "refresh"),),
            "`freshness.refresh` replaces VMs by new ones, but nothing makes any: there is no section `refill`",
            "add `refill: {}`, or remove `freshness.refresh`",
        )


def _check_balancer(policy: Policy, tick_s: float) -> Iterator[Finding]:
    if policy.balancer is None:
        return
    named = policy.balancer.named
    if len(named) != 1:
        found = f"{' and '.join(named)} are given" if named else "none is given"
        yield Finding(
            (("balancer",),),
            f"`balancer` needs exactly one of haproxy, target_group and command; {found}",
            "keep one",
        )
    if policy.drain.timeout_s < 3 * tick_s:
        yield Finding(
            (("drain", "timeout"), ("balancer",)),
            f"a VM is looked at twice after its cordon, which takes three ticks of {seconds_text(tick_s)}, but `drain.timeout` is "
            f"{seconds_text(policy.drain.timeout_s)}: none would ever be seen idle in time",
            f"write at least {seconds_text(6 * tick_s)}",
            Severity.WARNING,
        )


def _check_refill(policy: Policy) -> Iterator[Finding]:
    section, provision = policy.refill, policy.provision
    if section is None:
        return
    if provision is None:
        yield Finding(
            (("refill",),),
            "`refill` makes VMs, but there is no section `provision` that says from what",
            "add `provision` with at least `launch_template` and `maximum`",
        )
        return
    types = len(provision.types) + (provision.vm_type is not None or not provision.types)
    if section.weights and (len(section.weights) > types or not any(w > 0 for w in section.weights)):
        yield Finding(
            (("refill", "weights"), ("refill",)),
            f"`refill.weights` has {len(section.weights)} shares for {types} machine types, or none above zero",
            "write one whole number for `provision.vm_type` and each of `provision.types`, in their order",
        )
    if any(weight < 0 for weight in section.weights):
        yield Finding((("refill", "weights"),), "a share is below zero", "write whole numbers from 0")


def _check_window(window: QuietWindow, path: YamlPath) -> Iterator[Finding]:
    yield from check_time_zone(window.time_zone, path)
    if window.from_ is None or window.from_ == window.to:
        yield Finding(
            ((*path, "from"), path),
            "a window begins where it ends, or at 24:00",
            'for whole days write from: "00:00" and to: "24:00"',
        )
