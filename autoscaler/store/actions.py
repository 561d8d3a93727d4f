"""Intents and their outcomes as rows of the journal.

Rules of this file: everything is written in the caller's transaction. `reader` reads actions back.
"""

from __future__ import annotations

import json
import sqlite3

from autoscaler.ports import ActionIntent, Settled


def insert_action(
    connection: sqlite3.Connection, at_s: float, tick: int, intent: ActionIntent, action_id: int | None = None
) -> int:
    """Write an open action; return its id, which is the next free one if `action_id` is None."""
    cursor = connection.execute(
        "INSERT INTO actions (id, at_s, tick, fleet, verb, vm_ids, count, token, reason) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            action_id,
            at_s,
            tick,
            intent.fleet,
            intent.verb.value,
            json.dumps(intent.vm_ids),
            intent.count,
            intent.token,
            storable(intent.reason),
        ),
    )
    return int(cursor.lastrowid or 0)


def insert_outcomes(connection: sqlite3.Connection, settled: Settled) -> bool:
    """Settle an open action; return False, and write nothing, if there is no such action or it is already settled."""
    found = connection.execute(
        "UPDATE actions SET settled_at_s = ? WHERE id = ? AND settled_at_s IS NULL",
        (settled.at_s, settled.action_id),
    )
    if found.rowcount != 1:
        return False
    connection.executemany(
        "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (
                settled.action_id,
                position,
                outcome.vm_id,
                outcome.kind.value,
                storable(outcome.code),
                storable(outcome.message),
                None if outcome.previous_state is None else outcome.previous_state.value,
            )
            for position, outcome in enumerate(settled.outcomes)
        ),
    )
    return True


def storable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode; texts of providers and exceptions may contain them."""
    return text.encode("utf-8", "replace").decode("utf-8")
