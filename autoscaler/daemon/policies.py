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
"""A folder with more files is not one of policies."""

_NOTHING: Mapping[str, bytes] = MappingProxyType({})

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...] | str
"""Name, inode, size and time of change of every file; words where the folder cannot be read."""


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """The set of policies in use.

    Attributes:
        loaded_at_s: When it came into use; None where nobody follows a folder.
        digest: Of its files, for telling sets apart.
        error: For a person, why the folder's present content is not in use as a whole; empty where it is.
        partial: Whether the set in use was the usable part of a folder, as a daemon begins with it: nothing is done for
            the fleets of the other files.
    """

    loaded_at_s: float | None = None
    digest: str = ""
    error: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """The set that a daemon began with: what it was made of, and why it was not the whole folder.

    Attributes:
        stamp: Of the folder.
        digest: Of its files.
        left_out: For a person, each thing that keeps a fleet from being decided on.
        mended: For a person, each file that is used as it was when it was last good.
        warnings: For a person, what works and probably not as meant.
    """

    stamp: Stamp
    digest: str
    left_out: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class PolicyFolder:
    """One folder.

    Args:
        path: Where.
        tick_s: Length of a tick, which some checks compare with.
        clock: Tells what is over already; None where that does not matter.
    """

    def __init__(self, path: Path, tick_s: float, clock: Clock | None = None) -> None:
        self.path = path
        self._tick_s = tick_s
        self._clock = clock

    def stamp(self) -> Stamp:
        """What changes whenever a file of the folder does; cheap enough for every tick."""
        try:
            return tuple(
                (file.name, info.st_ino, info.st_size, info.st_mtime_ns)
                for file in self._files()
                for info in (file.stat(),)
            )
        except (OSError, ConfigError) as error:
            return str(error)

    def digest(self) -> str:
        """Of names and contents.

        Raises:
            ConfigError: The folder or a file of it cannot be read, or is no file.
        """
        return digest_of(self.contents())

    def contents(self) -> dict[str, bytes]:
        """What the files hold, by name.

        Raises:
            ConfigError: As of `digest`.
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
        """Stamp and digest, to be taken before `load`: what changes in between is then seen as a change."""
        stamp = self.stamp()
        try:
            return Loaded(stamp, self.digest())
        except ConfigError:
            # Loading says what is wrong with the folder.
            return Loaded(stamp, "")

    def load(self, instead: Mapping[str, bytes] = _NOTHING) -> PolicySet:
        """Every policy of the folder, with all problems; `instead` as of `load_policies`."""
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
    """Of files by name, in this order."""
    found = hashlib.sha256()
    for name, content in contents.items():
        found.update(f"{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:12]


def first_of(errors: Sequence[object]) -> str:
    """The first of some errors in words, and how many more there are; empty where there is none."""
    if not errors:
        return ""
    more = len(errors) - 1
    return f"{errors[0]}" + (f" (and {more} more; see `autoscaler validate`)" if more else "")
