"""The journal on disk: one SQLite database per state directory, one writer, any number of readers."""

from autoscaler.store.journal import SqliteJournal, open_journal
from autoscaler.store.reader import EventFilter, EventRecord, JournalReader, TickRow
from autoscaler.store.recovery import Recovery

__all__ = [
    "EventFilter",
    "EventRecord",
    "JournalReader",
    "Recovery",
    "SqliteJournal",
    "TickRow",
    "open_journal",
]
