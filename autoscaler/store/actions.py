"""An intent as a row of the journal.

Rules of this file: one statement, in the caller's transaction. `reader` reads actions back.
"""

from __future__ import annotations

import json
import sqlite3

from autoscaler.ports import ActionIntent


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


def storable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode; texts of providers and exceptions may contain them."""
    return text.encode("utf-8", "replace").decode("utf-8")
