"""The policy folder: whether it has changed, what it says, and which set is in use.

Rules of this file: reading only, bounded work, no clock. The caller decides where it may block.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from autoscaler.config.documents import MAX_BYTES
from autoscaler.config.loading import PolicySet, load_policies
from autoscaler.errors import ConfigError
from autoscaler.ports import Clock

MAX_FILES = 2000
"""Most files in the folder. A folder with more is probably not one of policies."""

_NOTHING: Mapping[str, bytes] = MappingProxyType({})

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...] | str
"""Name, inode, size and modification time of every file; an error text if the folder cannot be read."""


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """The set of policies in use.

    Attributes:
        loaded_at_s: When it came into use; None if no folder is followed.
        digest: Digest of its files, to tell sets apart.
        error: For people, why the folder's present content is not in use as a whole; empty if it is.
        partial: Whether the daemon started with only the usable part of the folder. Nothing is done for the fleets of
            the other files.
    """

    loaded_at_s: float | None = None
    digest: str = ""
    error: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """The policies that a daemon started with, and why they may not be the whole folder.

    Attributes:
        stamp: Stamp of the folder.
        digest: Digest of its files.
        left_out: For people, each problem that keeps a fleet from being decided on.
        mended: For people, each file for which the last good version is used instead.
        warnings: For people, what is valid but probably not intended.
    """

    stamp: Stamp
    digest: str
    left_out: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class PolicyFolder:
    """Reads the policies of one folder.

    Args:
        path: The folder.
        tick_s: Length of a tick in seconds, which some checks compare with.
        clock: Tells which events in policies are already over; None skips that check.
    """

    def __init__(self, path: Path, tick_s: float, clock: Clock | None = None) -> None:
        self.path = path
        self._tick_s = tick_s
        self._clock = clock

    def stamp(self) -> Stamp:
        """Return a value that changes whenever a file of the folder does; cheap enough for every tick."""
        try:
            return tuple(
                (file.name, info.st_ino, info.st_size, info.st_mtime_ns)
                for file in self._files()
                for info in (file.stat(),)
            )
        except (OSError, ConfigError) as error:
            return str(error)

    def digest(self) -> str:
        """Return the digest of the files' names and contents.

        Raises:
            ConfigError: The folder or one of its files cannot be read, or an entry is not a file.
        """
        return digest_of(self.contents())

    def contents(self) -> dict[str, bytes]:
        """Return the contents of the files, by name.

        Raises:
            ConfigError: The folder or one of its files cannot be read, or an entry is not a file.
        """
        found = {}
        try:
            for file in self._files():
                if not stat.S_ISREG(file.stat().st_mode):
                    raise ConfigError(f"{file} is not a file; policies are read from files only")
                with file.open("rb") as opened:
                    found[file.name] = opened.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{error.filename or self.path} cannot be read: {error.strerror}") from None
        return found

    def before_loading(self) -> Loaded:
        """Return stamp and digest, taken before `load`, so that a change in between is noticed later."""
        stamp = self.stamp()
        try:
            return Loaded(stamp, self.digest())
        except ConfigError:
            # `load` reports what is wrong with the folder.
            return Loaded(stamp, "")

    def load(self, instead: Mapping[str, bytes] = _NOTHING) -> PolicySet:
        """Return every policy of the folder, with all problems; `instead` as in `load_policies`."""
        now_s = None if self._clock is None else self._clock.now()
        return load_policies(self.path, self._tick_s, now_s, instead)

    def _files(self) -> Iterator[Path]:
        files = sorted(
            file
            for file in self.path.iterdir()
            if file.suffix in {".yaml", ".yml"} and not file.name.startswith(".")
        )
        if len(files) > MAX_FILES:
            raise ConfigError(f"{self.path} holds {len(files)} files; at most {MAX_FILES} are read")
        yield from files


def digest_of(contents: Mapping[str, bytes]) -> str:
    """Return the digest of files, given by name in this order."""
    found = hashlib.sha256()
    for name, content in contents.items():
        found.update(f"{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:12]


def first_of(errors: Sequence[object]) -> str:
    """Return the first error in words, and how many more there are; empty if there is none."""
    if not errors:
        return ""
    more = len(errors) - 1
    return f"{errors[0]}" + (f" (and {more} more; see `autoscaler validate`)" if more else "")
