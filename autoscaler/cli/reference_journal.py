"""The kinds of events in the journal: their meaning, and where the daemon's code records them.

Rules of this file: the meanings are written for operators. The kinds are read from the code, and a test checks that both
agree.
"""

from __future__ import annotations

import ast
from pathlib import Path

from autoscaler.ports import Verb

KINDS = {
    "arrival_failed": "The command after a start (`readiness.after_start`) failed on a VM; the VM does not serve, and the command is retried.",
    "arrival_not_run": "The command after a start (`readiness.after_start`) could not be run; the VM serves without it.",
    "balancer_believed": "A balancer has had fewer than half of a fleet's VMs for an hour; VMs absent from it count as drained from now on.",
    "balancer_has_vms": "A balancer has at least half of a fleet's VMs in service; VMs leave as usual.",
    "balancer_lacks_vms": "A balancer has fewer than half of a fleet's VMs in service, so absent VMs do not count as drained and no VM leaves.",
    "demand_believed": "Demand that fell suddenly is back, or has been low for so long that the fall is believed.",
    "demand_fell": "Demand fell suddenly and unusually deep, or vanished at all VMs; VMs stay for a while. Look for an outage in front of the fleet.",
    "drain_failed": "A VM could not be taken out of the balancer; it keeps serving.",
    "drain_left": "A VM was draining when the daemon stopped, and its fleet has since lost its policy or balancer or moved to shadow: put the VM back into the balancer by hand.",
    "drain_resumed": "A VM that was draining before a restart, or before the clock was set back, continues to drain.",
    "drain_undone": "Somebody, or a reload, put a draining VM back into the balancer; it is taken out again.",
    "exercise_left": "A VM was being exercised, or made for the warm pool, when the daemon ceased to act on its fleet. It keeps running: stop it by hand.",
    "exercise_failed": "An exercised VM would not have been able to serve; the text says why.",
    "exercise_not_run": "The command of an exercise could not be run; the VM goes back into the pool.",
    "exercise_resumed": "The exercise of a VM continues after a restart; the VM does not serve until it has been found healthy.",
    "hibernate_refused": "VMs that should have hibernated could not; the text says what was done instead.",
    "memory_lost": "A VM was hibernated for longer than the provider keeps its memory; it boots from disk.",
    "pool_adopt": "An operator assigned VMs to a fleet.",
    "pool_disown": "An operator released VMs from their fleet; they stay as they are.",
    "pool_evict": "An operator had stopped VMs deleted.",
    "pool_exercise": "An operator had stopped VMs exercised.",
    "pool_quarantine": "An operator barred VMs from being started.",
    "pool_exhausted": "VMs were made from nothing for demand, since no stopped VM could be started; the text says what to do.",
    "pool_kept": "A VM was protected while it was being made or exercised for the warm pool: it serves if it becomes ready, and otherwise keeps running.",
    "pool_ready": "A VM made for the warm pool, or exercised, is ready and is stopped into the pool.",
    "pool_refresh": "An operator had outdated VMs replaced.",
    "pool_release": "An operator allowed VMs to be started again.",
    "prepare_failed": "A VM made for the warm pool did not become ready.",
    "reading_believed": "A VM whose readings were ignored reports plausible values again, or is no longer read.",
    "reading_beyond": "A VM reports many times what a VM can do, unlike the others; its readings are ignored.",
    "refill_failed": "VMs could not be made for the warm pool, or only some of them; the text quotes the provider and says when it is retried.",
    "return_failed": "A VM that was draining or being exercised could not be put back into the balancer.",
    "template_read": "A launch template that could not be read can be read again.",
    "template_unreadable": "A launch template cannot be read, so outdated VMs are not replaced; the text says why.",
    "terminate_not_accepted": "A request to delete VMs was not accepted; the text quotes the provider.",
    "override_cleared": "An operator ended an override; the policy's bounds apply again.",
    "override_expired": "An operator's override has expired.",
    "overridden": "An operator overrode a policy's bounds.",
    "pause_expired": "An operator's pause has expired.",
    "paused": "An operator paused starts, stops, provisioning or refills.",
    "provision_failed": "VMs could not be made from the launch template, or only some of them; then the text says how many were made.",
    "provision_not_accepted": "A request to make VMs was not accepted; the text quotes the provider.",
    "resumed": "An operator ended a pause.",
    "start_fell_back": "A start was accepted, but the VM went back to stopped; it is not retried for a while.",
    "start_not_accepted": "A request to start VMs was not accepted; the text quotes the provider.",
    "start_not_taken": "A start with unknown outcome turned out not to have happened.",
    "late_not_needed": "A VM became ready after another had taken its place; it is stopped before it serves.",
    "lease_free": "Another daemon that acted on the fleet has shown no sign for minutes; this one takes over.",
    "lease_not_written": "VMs could not be tagged as this daemon's, so another daemon may act on them too; the text says why, and what to do.",
    "lease_of_another": "Another daemon acts on the fleet, so this one does nothing; the text says which one.",
    "never_ready": "A VM runs but does not become ready; it is stopped and not retried for a while.",
    "not_ready": "A VM runs but does not become ready, and is not stopped; the text says why.",
    "shortage_began": "VMs that the fleet wants cannot be had from anywhere, or have not come for longer than a start takes; the text says why.",
    "shortage_ended": "All wanted VMs are available again.",
    "start_late": "A VM takes longer than usual to start; another may take its place.",
    "type_not_restored": "A VM that was started as another machine type could not be set back to its own.",
    "type_restored": "A VM that was started as another machine type is set back to its own.",
    "vm_written_off": "A VM never ran, or never stopped; it is no longer counted.",
    "start_overdue": "A VM has exceeded the time limit for starting.",
    "started_outside": "Somebody else started a VM.",
    "stop_not_accepted": "A request to stop VMs was not accepted; the text quotes the provider.",
    "stop_not_taken": "A VM still runs after a request to stop.",
    "stop_taken_late": "A VM that seemed to run on after a request to stop was stopped by it after all.",
    "stop_overdue": "A VM has exceeded the time limit for stopping.",
    "stopped_outside": "Somebody else stopped a VM.",
    "planned_anew": "The start time or capacity used for planning changed, because of what was learned or of other machine types.",
    "vm_replaced": "A VM is slow or silent; it no longer counts, and is stopped once another serves.",
    "vms_slow": "VMs are slow or silent; the text says which, and whether it is a few, about half or nearly all of the fleet.",
    "vms_unlisted": "Complete listings lack all of the fleet's VMs, or most of them at once, and do not show them as terminated; they count as unchanged for ten minutes.",
    "vms_listed": "VMs that were missing from complete listings are in them again.",
    "vms_well": "No VM of the fleet is slow or silent any more.",
    "vm_gone": "A VM was missing from several complete listings and no longer counts.",
    "vm_moved": "A VM is now tagged for another fleet and belongs to it from this listing on.",
    "vm_in_group": "A VM is also in an Auto Scaling group; it is neither started nor stopped.",
    "vm_terminated": "A VM was terminated.",
}
"""Kinds that are not log events too. The others have their meaning in `daemon.telemetry.EVENTS`."""

_MAKERS = {"Note", "_note", "_record", "event"}


def kinds_in(folder: Path) -> set[str]:
    """Return the kinds that modules in a folder and its subfolders record: first arguments of the calls that record an event.

    An f-string that starts with a verb stands for one kind each of start, stop and provision.
    """
    found: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and _name(node.func) in _MAKERS:
                found |= _texts(node.args[0])
    return found


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _texts(argument: ast.expr) -> set[str]:
    if isinstance(argument, ast.Constant):
        return {str(argument.value)}
    if isinstance(argument, ast.IfExp):
        return _texts(argument.body) | _texts(argument.orelse)
    if isinstance(argument, ast.JoinedStr):
        rest = "".join(str(part.value) for part in argument.values if isinstance(part, ast.Constant))
        return {f"{verb}{rest}" for verb in (Verb.START, Verb.STOP, Verb.PROVISION)}
    return set()
