"""The exception hierarchy.

Rules: expected failures (no capacity, a stale sample) are outcome values, not exceptions. An exception is
unexpected or ends a command; its message says what is wrong, where, and what to do.
"""

from __future__ import annotations


class AutoscalerError(Exception):
    """Root of all errors that this program raises on purpose."""


class ConfigError(AutoscalerError):
    """A policy or a setting is wrong; the message names file, line and column if there are any."""


class TraceError(AutoscalerError):
    """A trace file cannot be used; the message names file and line."""


class SourceError(AutoscalerError):
    """A metric source gave no usable answer.

    Args:
        message: What happened, for people.
        retryable: Whether the next tick may succeed.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class OversizedError(SourceError):
    """The input of a source is larger than it accepts."""


class ProviderError(AutoscalerError):
    """A provider call failed as a whole in a way that no outcome value describes.

    Args:
        message: What happened, for people.
        code: The provider's own error code, or a short one of ours.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class JournalError(AutoscalerError):
    """The journal cannot be read or written."""


class JournalDamagedError(JournalError):
    """The journal's files are damaged, or records that were acknowledged are missing from them."""


class JournalLateError(JournalError):
    """The journal did not answer in time; the record may or may not be written."""


class ChangeRefusedError(AutoscalerError):
    """An operator asked for a change that makes no sense; nothing has changed."""


class DaemonError(AutoscalerError):
    """The daemon cannot start or continue (address in use, state directory taken)."""


class InvariantError(AutoscalerError):
    """An internal invariant is broken: a bug in this program, to be reported."""
