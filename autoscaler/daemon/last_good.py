"""The complete set of policy files that was last in use, kept across restarts.

Why: a running daemon keeps the last good set if a file is broken. Without this module a restart, which may be unplanned, would
leave that file's fleet alone until somebody repairs it, and the daemon would not start at all if it is the only file, or the
defaults.

Rules of this file: only a file that exists and cannot be used is replaced by its last version; a removed file stays removed.
Failures to read or write here change nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from autoscaler.config.loading import PolicySet
from autoscaler.daemon.policies import PolicyFolder, digest_of

FILE_NAME = "policies.last-good"
"""In the state directory."""


class LastGood:
    """One file that holds the policy files of a folder.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, folder: PolicyFolder, digest: str) -> None:
        """Keep the files that have come into use, where the folder is still as it was then.

        Raises:
            OSError: They cannot be written.
            ConfigError: They cannot be read.
        """
        contents = folder.contents()
        if digest_of(contents) != digest or self._read() == contents:
            return
        files = {name: content.decode() for name, content in contents.items()}
        new = self.path.with_name(f"{self.path.name}.new")
        # Policies may be nobody else's to read.
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump({"digest": digest, "files": files}, opened, indent=1)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(self.path)

    def mend(self, folder: PolicyFolder, found: PolicySet) -> tuple[PolicySet, tuple[str, ...]]:
        """What is to be used where files of a folder cannot be: these as they were last in use.

        Args:
            folder: The files as they are.
            found: What they say.

        Returns:
            The set, with what is wrong even so as its errors; and for a person each file that was replaced. What was
            found, and none, where that is no better.
        """
        kept = self._read()
        broken = {each.mark.file.name: each for each in reversed(found.errors)}
        replaced = sorted(broken.keys() & kept.keys())
        if not replaced:
            return found, ()
        mended = folder.load({name: kept[name] for name in replaced})
        if len(mended.policies) <= len(found.policies):
            return found, ()
        return mended, tuple(f"{name} is used in its last good version: {broken[name]}" for name in replaced)

    def _read(self) -> dict[str, bytes]:
        """The files by name; none where nothing is kept, or it is damaged."""
        try:
            said = json.loads(self.path.read_text("utf-8"))
            files = {str(name): str(text).encode() for name, text in said["files"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}
        return files if digest_of(files) == said["digest"] else {}
