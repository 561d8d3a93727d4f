"""The exception hierarchy.

Rules: expected failures (no capacity, a stale sample) are outcome values, not exceptions. What is raised
here is unexpected or ends a command; the message says what is wrong, where, and what to do.
"""

from __future__ import annotations


class AutoscalerError(Exception):
    """Root of all errors that this program raises on purpose."""


class ConfigError(AutoscalerError):
    """A policy or a setting is wrong; the message carries file, line and column where there is one."""


class TraceError(AutoscalerError):
    """A trace file cannot be used; the message carries file and line."""


class SourceError(AutoscalerError):
    """A metric source did not answer usefully.

    Args:
        message: What happened, for a person.
        retryable: Whether the next tick may find it healed.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class OversizedError(SourceError):
    """What a source was given is larger than it takes."""


class ProviderError(AutoscalerError):
    """A provider call failed as a whole in a way that no outcome value describes.

    Args:
        message: What happened, for a person.
        code: The provider's own error code, or a short name of ours.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class JournalError(AutoscalerError):
    """The journal cannot be read or written."""


class JournalDamagedError(JournalError):
    """The journal's files are damaged, or records that were acknowledged are missing from them."""


class JournalLateError(JournalError):
    """The journal did not answer in time; what was to be written may still be."""


class ChangeRefusedError(AutoscalerError):
    """An operator asked for a change that makes no sense; nothing has changed."""


class DaemonError(AutoscalerError):
    """The daemon cannot start or go on (address in use, state directory taken)."""


class InvariantError(AutoscalerError):
    """The program contradicts itself; please report."""
