"""Who may push samples: the tokens in a file, each optionally with an expiry and a list of fleets.

    # one token a line; `expires=` and `fleets=` are optional
    6f0c…c1 expires=2027-01-01T00:00:00Z fleets=web,api

Rules of this file: the file is read again when it has changed, so that a token can be replaced without a restart; while both
lines exist, both tokens are valid. Every check compares all tokens, in constant time, and no message contains one. If the
file cannot be used, nobody may push, and the reason is reported.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autoscaler.errors import ConfigError

SHORTEST = 16
"""Fewest characters of a token; `openssl rand -hex 32` makes one of 64."""
LARGEST_FILE = 64 * 1024
LOOK_EVERY_S = 1.0
"""Shortest time between two checks whether the file has changed, seconds."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The rights of one token.

    Attributes:
        digest: SHA-256 of the token.
        expires_s: When it expires, epoch seconds; None for never.
        fleets: Fleets that it may push for; None for all.
    """

    digest: bytes
    expires_s: float | None
    fleets: frozenset[str] | None


class PushTokens:
    """The tokens in a file, which is read again when it changes.

    Args:
        path: The file.
        now: Returns epoch seconds.

    Raises:
        ConfigError: The file cannot be used.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._looked_s = now()
        self._stamp = _stamp(path)
        self._holders = _read(path)
        self.problem = ""
        """Why no token is accepted; empty if the file can be used."""

    def holder(self, token: str) -> Holder | None:
        """Return the rights of a token, even if it has expired; None if the token is unknown."""
        self._look()
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        found = None
        for holder in self._holders:
            if hmac.compare_digest(holder.digest, digest):
                found = holder
        return found

    def _look(self) -> None:
        """Read the file again if it has changed."""
        now_s = self._now()
        if 0.0 <= now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._holders, self.problem = _read(self._path), ""
        except ConfigError as error:
            self._holders, self.problem = (), str(error)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return values that change with the file; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> tuple[Holder, ...]:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
            readable_by_all = os.fstat(file.fileno()).st_mode & 0o004
    except OSError as error:
        raise ConfigError(
            f"the file of push tokens {path} cannot be read: {error.strerror}; nobody may push"
        ) from None
    if readable_by_all:
        raise ConfigError(
            f"the file of push tokens {path} can be read by everybody on this machine; chmod 640 it; until then nobody may push"
        )
    if len(raw) > LARGEST_FILE:
        raise ConfigError(f"the file of push tokens {path} is larger than {LARGEST_FILE} bytes")
    lines = raw.decode(errors="surrogateescape").splitlines()
    holders = tuple(
        _holder(path, number, line.split())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    if not holders:
        raise ConfigError(
            f"the file of push tokens {path} holds no token; write one with `openssl rand -hex 32`"
        )
    return holders


def _holder(path: Path, number: int, words: list[str]) -> Holder:
    token, *options = words
    if len(token) < SHORTEST:
        raise ConfigError(f"{path}:{number}: a token has at least {SHORTEST} characters; nobody may push")
    expires_s, fleets = None, None
    for place, option in enumerate(options, 2):
        name, _, value = option.partition("=")
        if name == "expires":
            expires_s = _moment(path, number, value)
        elif name == "fleets" and value:
            fleets = frozenset(re.split(r",+", value.strip(",")))
        else:
            # The word itself is not shown: it may be the rest of a token that contains a blank.
            raise ConfigError(
                f"{path}:{number}: word {place} is not an option of a token; the options are expires=TIME and fleets=NAME,NAME"
            )
    return Holder(hashlib.sha256(token.encode(errors="surrogateescape")).digest(), expires_s, fleets)


def _moment(path: Path, number: int, text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(
            f"{path}:{number}: expires={text[:40]} is not a time with its offset, for example 2027-01-01T00:00:00Z"
        )
    return moment.timestamp()
