"""Learned state of fleets, as rows: the latest one per fleet and name.

Rules of this file: bodies are opaque bytes with a layout version; a reader that does not know the version ignores them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from autoscaler.ports import Learned

_INSERT = (
    "INSERT INTO learned (fleet, name, at_s, version, body) VALUES (?, ?, ?, ?, ?) ON CONFLICT (fleet, name) "
    "DO UPDATE SET at_s = excluded.at_s, version = excluded.version, body = excluded.body"
)


def insert_learned(connection: sqlite3.Connection, at_s: float, learned: Iterable[Learned]) -> None:
    """Write learned state, replacing earlier state of the same fleets and names."""
    connection.executemany(_INSERT, ((row.fleet, row.name, at_s, row.version, row.body) for row in learned))


def read_learned(connection: sqlite3.Connection) -> tuple[Learned, ...]:
    """All learned state, sorted by fleet and name."""
    rows = connection.execute("SELECT fleet, name, version, body FROM learned ORDER BY fleet, name")
    return tuple(Learned(*row) for row in rows)


def forget_learned(connection: sqlite3.Connection, before_s: float) -> None:
    """Delete state last written before a time, if its fleet is in no recorded tick any more.

    What is known of a fleet that is there but rarely changes, such as start times of a fleet that seldom starts, stays.
    """
    connection.execute(
        "DELETE FROM learned WHERE at_s < ? AND fleet NOT IN "
        "(SELECT value FROM rosters, json_each(rosters.fleets))",
        (before_s,),
    )
