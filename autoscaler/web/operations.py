"""Pauses and overrides in force, as JSON: for the status, and for answers on the control socket."""

from __future__ import annotations

from typing import Any

from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.operating import operator_words as words
from autoscaler.ports import ALL_FLEETS, ChangeRecord


def operations(daemon: Daemon) -> dict[str, Any]:
    """Return all pauses and overrides in force, oldest first, as JSON and in sentences."""
    records, fleets = daemon.operators.in_force(), daemon.fleets.by_name
    return {
        "in_force": [change_json(daemon, record) for record in records],
        "sentences": words.in_force(records, fleets.keys()),
    }


def change_json(daemon: Daemon, record: ChangeRecord) -> dict[str, Any]:
    """Return one change. `fleet` is null for all fleets, `verb` for an override, `expires_at_s` if it has no end."""
    change = record.change
    return {
        "id": record.id,
        "change": str(change.kind),
        "fleet": None if change.fleet == ALL_FLEETS else change.fleet,
        "verb": None if change.verb is None else str(change.verb),
        "floor": change.floor,
        "ceiling": change.ceiling,
        "who": change.who,
        "reason": change.reason,
        "at_s": record.at_s,
        "expires_at_s": change.expires_at_s,
        "has_effect": not words.without_effect(change, daemon.fleets.by_name.keys()),
    }
