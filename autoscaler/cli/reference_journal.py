"""The kinds of events in the journal, with their meaning, and where the daemon's code makes them.

Rules of this file: the meanings are for operators; which kinds there are is read from the code, and a test sees
to it that both agree.
"""

from __future__ import annotations

import ast
from pathlib import Path

from autoscaler.ports import Verb

KINDS = {
    "arrival_failed": "What the policy has done after a start failed for a VM, which does not serve; it is tried again.",
    "arrival_not_run": "What the policy has done after a start could not be run; the VM serves without it.",
    "balancer_believed": "A balancer has had too few of a fleet's VMs for an hour: those absent from it count as drained from now on.",
    "balancer_has_vms": "A balancer has at least half of a fleet's VMs in service; VMs leave as usual.",
    "balancer_lacks_vms": "A balancer has fewer than half of a fleet's VMs in service, so absent ones are not taken for drained and none leaves.",
    "demand_believed": "Demand that fell at once is back, or was low for so long that it is believed.",
    "demand_fell": "Demand fell at once as it hardly ever did, or vanished at all VMs; VMs stay for a while. Look for an outage in front.",
    "drain_failed": "A VM could not be taken out of the balancer; it serves on.",
    "drain_left": "A VM was draining when the daemon ended, and its fleet is in shadow, or has no policy or no balancer, since: put it back into the balancer by hand.",
    "drain_resumed": "A VM that was draining before a restart, or before the clock was set back, drains on.",
    "drain_undone": "Somebody put a draining VM back into the balancer; it is taken out again.",
    "exercise_left": "A VM was being tried, or made for the warm pool, when the daemon ceased to act on its fleet: it runs on, stop it by hand.",
    "exercise_failed": "A stopped VM that was tried would not have served; the text says why.",
    "exercise_not_run": "What the policy has done on VMs that are tried could not be run; the VM goes back into the pool.",
    "exercise_resumed": "A VM that was being tried when the daemon ended is tried on, and does not serve before it was found well.",
    "hibernate_refused": "VMs that should have saved their memory could not; the text says what was done instead.",
    "memory_lost": "A VM was hibernated for longer than the provider keeps a memory; it boots from its disk.",
    "pool_adopt": "An operator made VMs belong to a fleet.",
    "pool_disown": "An operator let go of VMs; they stay as they are.",
    "pool_evict": "An operator had stopped VMs deleted.",
    "pool_exercise": "An operator had stopped VMs tried.",
    "pool_quarantine": "An operator keeps VMs from being started.",
    "pool_exhausted": "VMs were made from nothing for demand, since no stopped VM could be started; what to do.",
    "pool_kept": "A VM that is made or tried for the warm pool is protected meanwhile: it serves once it is ready, and otherwise runs on beside.",
    "pool_ready": "A VM made for the warm pool, or tried, was seen ready and is stopped into the pool.",
    "pool_refresh": "An operator had VMs that are out of date replaced.",
    "pool_release": "An operator lets VMs be started again.",
    "prepare_failed": "A VM made for the warm pool did not become ready.",
    "reading_believed": "A VM whose readings were left out reports what a VM can do again, or is not read any more.",
    "reading_beyond": "A VM reports many times what a VM can do, unlike its fellows; that is left out as if it had not been read.",
    "refill_failed": "A VM could not be made for the warm pool; the text has the provider's words and when it is tried again.",
    "return_failed": "A VM that was draining or tried could not be put back into the balancer.",
    "template_read": "A launch template that could not be read can be read again.",
    "template_unreadable": "A launch template cannot be read, so that VMs which are out of date are not replaced; the text says why.",
    "terminate_not_accepted": "An order to delete VMs was not taken; the text has the provider's words.",
    "override_cleared": "An operator ended an override; the policy's bounds hold again.",
    "override_expired": "An operator's override has ended by the clock.",
    "overridden": "An operator put other bounds in the place of a policy's.",
    "pause_expired": "An operator's pause has ended by the clock.",
    "paused": "An operator paused starts, stops, provisioning or refills.",
    "provision_failed": "A VM could not be made from the launch template.",
    "provision_not_accepted": "An order to make VMs was not taken; the text has the provider's words.",
    "resumed": "An operator ended a pause.",
    "start_fell_back": "A start was accepted and the VM went back to stopped; it is not tried again for a while.",
    "start_not_accepted": "An order to start was not taken; the text has the provider's words.",
    "start_not_taken": "A start of unknown outcome turned out not to have happened.",
    "late_not_needed": "A VM came after another had taken its place, and is stopped before it serves.",
    "lease_free": "Another daemon that acted on the fleet has not said so for minutes; this one takes over.",
    "lease_not_written": "VMs could not be marked as this daemon's, so another one may act on them too; why, and what to do.",
    "lease_of_another": "Another daemon acts on the fleet, and nothing is done here; which one.",
    "never_ready": "A VM runs and does not become ready; it is stopped and not tried again for a while.",
    "not_ready": "A VM runs and does not become ready, and it is not stopped for it; why.",
    "shortage_began": "VMs are wanted that cannot be had from anywhere; the text says why.",
    "shortage_ended": "What is wanted can be had again.",
    "start_late": "A VM is starting for longer than usual; another may take its place.",
    "type_not_restored": "A VM that was started as another machine type could not be given its own again.",
    "type_restored": "A VM that was started as another machine type has its own again.",
    "vm_written_off": "A VM never ran, or never stopped; it is no longer counted.",
    "start_overdue": "A VM is starting for longer than it may.",
    "started_outside": "Somebody else started a VM.",
    "stop_not_accepted": "An order to stop was not taken; the text has the provider's words.",
    "stop_not_taken": "A VM still runs after an order to stop.",
    "stop_overdue": "A VM is stopping for longer than it may.",
    "stopped_outside": "Somebody else stopped a VM.",
    "planned_anew": "What was learned, or other machine types, changed the start time or capacity that is planned with.",
    "vm_replaced": "A VM is slow or silent; it is no longer counted on, and stopped once another serves.",
    "vms_slow": "VMs are slow or silent, and which; whether it is a few, about half or nearly all of the fleet.",
    "vms_unlisted": "Whole listings show none of the fleet's VMs, nor that any was terminated; they are taken to be as before for ten minutes.",
    "vms_well": "No VM of the fleet is slow or silent any more.",
    "vm_gone": "A VM is missing from several complete listings and no longer counted.",
    "vm_moved": "A VM is tagged for another fleet now; it is that fleet's from this listing on.",
    "vm_in_group": "A VM is in an Auto Scaling group, too; it is neither started nor stopped.",
    "vm_terminated": "A VM was terminated.",
}
"""Kinds that are no log events of their own; the others are, and have their meaning there."""

_MAKERS = {"Note", "_note", "_record", "event"}


def kinds_in(folder: Path) -> set[str]:
    """The kinds that the modules of a folder and its rooms make: first arguments of the calls that note something.

    A kind that begins with a verb is one per verb that demand orders.
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
