"""The journal on disk: one SQLite database per state directory, one writer, any number of readers."""

from autoscaler.store.journal import SqliteJournal
from autoscaler.store.reader import EventRecord, JournalReader, TickRow

__all__ = ["EventRecord", "JournalReader", "SqliteJournal", "TickRow"]
