"""Which hosts to use, and their timeouts.

Rules: a frozen value that can check itself. Reading the environment or a file is not done here.
"""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from autoscaler.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LibvirtSettings:
    """Settings for all hosts of one daemon.

    Attributes:
        uris: One libvirt URI per host (`qemu:///system`, `qemu+ssh://user@host/system`).
        heed_memory: Whether starts are refused that do not fit into the host's free memory.
        listing_s: Longest wait for one host's part of a listing; less than the tick's wait for the whole listing.
        call_s: Longest wait for one change of one VM.
        batch_s: Changes of a call that have not begun after this time are not made.
        saving_s: How long to wait for a refusal after saving memory has begun; saving continues afterwards.

    Raises:
        ConfigError: There is no host, a host is listed twice, or a URI is not a libvirt URI.
    """

    uris: tuple[str, ...]
    heed_memory: bool = True
    listing_s: float = 4.0
    call_s: float = 20.0
    batch_s: float = 20.0
    saving_s: float = 1.5

    def __post_init__(self) -> None:
        if not self.uris:
            raise ConfigError("libvirt: libvirt_uris names no host; for example qemu:///system")
        for uri in self.uris:
            parts = urlsplit(uri)
            if not parts.scheme or not uri.startswith(f"{parts.scheme}://"):
                raise ConfigError(
                    f"libvirt: {uri!r} is not a libvirt URI; write for example qemu:///system or qemu+ssh://user@host/system"
                )
            if parts.password is not None:
                raise ConfigError(
                    "libvirt: a URI with a password in it would be logged; let ssh use a key of its own"
                )
        if twice := [uri for uri, count in Counter(self.uris).items() if count > 1]:
            raise ConfigError(f"libvirt: libvirt_uris names {twice[0]} twice")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_s") and not value > 0:
                raise ConfigError(f"libvirt settings: {each.name} is {value}; it must be more than 0 seconds")

    @property
    def hosts(self) -> dict[str, str]:
        """The URI to open, by the name of the host, which is the zone of its VMs."""
        names = [host_of(uri) for uri in self.uris]
        return {
            name if names.count(name) == 1 else uri: _without_terminal(uri)
            for name, uri in zip(names, self.uris, strict=True)
        }


def host_of(uri: str) -> str:
    """The host in a URI. It is known before the host answers, and is the same each time."""
    return urlsplit(uri).hostname or platform.node()


def _without_terminal(uri: str) -> str:
    """The URI with an option that keeps ssh from asking for a password: a daemon has no terminal."""
    parts = urlsplit(uri)
    if not parts.scheme.endswith("+ssh") or "no_tty" in dict(parse_qsl(parts.query)):
        return uri
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, "no_tty=1")))))
