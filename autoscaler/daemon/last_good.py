"""The complete set of policy files that was last in use, kept across restarts.

Why: a running daemon keeps the last good set if a file is broken. Without this module a restart, which may be
unplanned, would leave that file's fleet alone until someone repairs it, and the daemon would not start at all if it is
the only file, or the defaults.

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
"""Name of the file in the state directory."""


class LastGood:
    """One file that holds the policy files of a folder as they were last in use.

    Args:
        path: Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, folder: PolicyFolder, digest: str) -> None:
        """Store the files that have come into use, unless the folder has changed since.

        Args:
            folder: The policy folder.
            digest: Digest of the files that came into use.

        Raises:
            OSError: The file cannot be written.
            ConfigError: The folder cannot be read.
        """
        contents = folder.contents()
        if digest_of(contents) != digest or self._read() == contents:
            return
        files = {name: content.decode() for name, content in contents.items()}
        new = self.path.with_name(f"{self.path.name}.new")
        # Policies may be readable by their owner only.
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump({"digest": digest, "files": files}, opened, indent=1)
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(self.path)

    def mend(self, folder: PolicyFolder, found: PolicySet) -> tuple[PolicySet, tuple[str, ...]]:
        """Replace policy files that cannot be used by their last good versions.

        Args:
            folder: The policy folder.
            found: What was loaded from it, with its errors.

        Returns:
            The set to use, with its remaining errors, and for people each file that was replaced. If that gives no more
                policies than `found`, then `found` and an empty tuple.
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
        """Return the stored files by name; empty if nothing is stored, or it is damaged."""
        try:
            said = json.loads(self.path.read_text("utf-8"))
            files = {str(name): str(text).encode() for name, text in said["files"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}
        return files if digest_of(files) == said["digest"] else {}
