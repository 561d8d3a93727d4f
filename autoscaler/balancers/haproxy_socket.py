"""HAProxy's runtime socket: sends commands, returns text, and parses the `show stat` table.

Rules of this file: one connection per request, with limits on time and bytes. An unexpected answer is an error, and is
never read as an empty one.
"""

from __future__ import annotations

import asyncio
import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

LARGEST_ANSWER = 16 << 20
"""Most bytes of an answer; a table of ten thousand rows has about four megabytes."""
COMMANDS_AT_ONCE = 100
"""Most commands in one line, because HAProxy reads a line into one buffer of 16 kB."""
_READ = 1 << 16
_SHOWN = 80
_PID = re.compile(r"^Pid: (\d+)\r?$", re.MULTILINE)
_UPTIME = re.compile(r"^Uptime_sec: (\d+)\r?$", re.MULTILINE)


class HaproxyError(Exception):
    """The socket did not answer usefully; the message says how, for people."""


@dataclass(frozen=True, slots=True)
class StatRow:
    """One line of `show stat`: a backend as a whole, or one of its entries.

    Attributes:
        name: The entry's name; BACKEND for the backend as a whole.
        status: The status in HAProxy's words (UP, DRAIN, MAINT, no check, ...).
        sessions: Sessions being served now.
        queued: Requests waiting for a free place.
        arrived: Requests (mode tcp: connections) since HAProxy started, counted on arrival. HAProxy's `req_tot` counts
            requests once they are answered, so it misses those that wait.
        limit: Most sessions at a time; None if there is no limit.
        address: Host, without the port; empty if the socket's level does not show it.
    """

    name: str
    status: str
    sessions: int
    queued: int
    arrived: int
    limit: int | None
    address: str


@dataclass(frozen=True, slots=True)
class Process:
    """A HAProxy process: counters and sessions begin at zero with each.

    Attributes:
        pid: Its number. Processes in containers may all have the same.
        up_s: For how long it has run, in whole seconds.
    """

    pid: int
    up_s: int

    @property
    def age_s(self) -> float:
        """For how long it has run, in seconds, to half a second."""
        return self.up_s + 0.5

    def follows(self, other: Process) -> bool:
        """Whether this is not that process, seen later."""
        return self.pid != other.pid or self.up_s < other.up_s


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of one HAProxy process.

    Attributes:
        process: Which process that is.
        rows: The backend and its entries.
    """

    process: Process
    rows: list[StatRow]


class HaproxySocket:
    """The runtime socket of one HAProxy process.

    Args:
        place: Path of its Unix socket, or host:port.
        timeout_s: Longest time of one request, in seconds of the event loop.
    """

    def __init__(self, place: str, timeout_s: float) -> None:
        self.place = place
        self._timeout_s = timeout_s

    async def table(self, backend: str) -> list[StatRow]:
        """Return the rows of the backend and its entries.

        Raises:
            HaproxyError: HAProxy does not answer, or not with this table.
        """
        (text,) = await self.ask([_table_of(backend)])
        return read_table(text, backend, self.place)

    async def counters(self, backend: str) -> Counters:
        """Return the rows of the backend and its entries, and since when their process counts.

        Raises:
            HaproxyError: HAProxy does not answer, or not with this.
        """
        # In one connection: a reload between two would give the age of one process and the counters of another.
        info, text = await self.ask(["show info", _table_of(backend)])
        if (process := _process(info)) is None:
            shown = info.strip().splitlines()[0][:_SHOWN] if info.strip() else "nothing"
            raise HaproxyError(f"HAProxy at {self.place} does not say for how long it has run, but {shown!r}")
        return Counters(process, read_table(text, backend, self.place))

    async def table_and_process(self, backend: str) -> tuple[list[StatRow], Process | None]:
        """Return the rows of the backend and its entries, and the process whose sessions they are; None if it does not say.

        Raises:
            HaproxyError: HAProxy does not answer, or not with this table.
        """
        text, info = await self.ask([_table_of(backend), "show info"])
        return read_table(text, backend, self.place), _process(info)

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """Send commands and return their answers, in order, without line feeds at the end.

        Raises:
            HaproxyError: HAProxy does not answer.
        """
        answers: list[str] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                for at in range(0, len(commands), COMMANDS_AT_ONCE):
                    answers += await self._ask(commands[at : at + COMMANDS_AT_ONCE])
        except TimeoutError:
            raise HaproxyError(
                f"HAProxy at {self.place} did not answer within {self._timeout_s:g} s"
            ) from None
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            # A reload hands the socket on, and its file with it.
            gone = ", and restart it if the file was removed" if isinstance(error, FileNotFoundError) else ""
            raise HaproxyError(
                f"HAProxy at {self.place} cannot be reached ({why}); check `stats socket` in its configuration{gone}"
            ) from None
        return answers

    async def _ask(self, commands: Sequence[str]) -> list[str]:
        reader, writer = await self._connected()
        try:
            writer.write("; ".join(commands).encode() + b"\n")
            await writer.drain()
            body = bytearray()
            while chunk := await reader.read(_READ):
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise HaproxyError(f"the answer of HAProxy at {self.place} is longer than 16 MiB")
        finally:
            writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise HaproxyError(
                f"what answers at {self.place} is not HAProxy: the answer is not text"
            ) from None
        if not text:
            raise HaproxyError(f"HAProxy at {self.place} closed the connection without an answer")
        return _split(text, len(commands))

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, colon, port = self.place.rpartition(":")
        if colon and port.isdecimal() and "/" not in self.place:
            return await asyncio.open_connection(host.strip("[]"), int(port))
        return await asyncio.open_unix_connection(self.place.removeprefix("unix:"))


def _table_of(backend: str) -> str:
    """The command that shows a backend and its entries."""
    return f"show stat {backend} 6 -1"


def _process(info: str) -> Process | None:
    """The process that says this about itself; None if it does not."""
    pid, up_s = _PID.search(info), _UPTIME.search(info)
    return None if pid is None or up_s is None else Process(int(pid[1]), int(up_s[1]))


def _split(text: str, commands: int) -> list[str]:
    """Split a text into one answer per command: HAProxy ends each with an empty line, and an empty answer is only that."""
    if commands == 1:
        return [text.strip("\n")]
    answers, rest = [], text
    for _ in range(commands):
        if rest.startswith("\n"):
            answer, rest = "", rest[1:]
        else:
            answer, _, rest = rest.partition("\n\n")
        answers.append(answer.strip("\n"))
    return answers


def read_table(text: str, backend: str, place: str) -> list[StatRow]:
    """Return the rows of a backend in a `show stat` answer.

    Raises:
        HaproxyError: The text is no such answer, or the backend is not in it.
    """
    if not text.startswith("# pxname,svname,"):
        shown = text.strip().splitlines()[0][:_SHOWN] if text.strip() else "nothing"
        raise HaproxyError(
            f"HAProxy at {place} answered {shown!r} instead of its table; is there a backend {backend}, and may "
            "this socket be asked for it (level operator or admin)?"
        )
    try:
        lines = csv.DictReader(text[2:].splitlines(), strict=True)
        found = [_row(line) for line in lines if line["pxname"] == backend]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise HaproxyError(
            f"the table of HAProxy at {place} cannot be read: {type(error).__name__} {error}"
        ) from None
    if not found:
        raise HaproxyError(f"HAProxy at {place} has no backend {backend}; check `backend`")
    return found


def _row(line: dict[str, str]) -> StatRow:
    return StatRow(
        name=line["svname"],
        status=line["status"],
        sessions=int(line["scur"] or 0),
        queued=int(line["qcur"] or 0),
        arrived=int(line["stot"] or 0),
        limit=int(line["slim"]) if line["slim"] else None,
        address=host_of(line.get("addr") or ""),
    )


def host_of(address: str) -> str:
    """Return the host of host:port, of [v6]:port or of a bare host."""
    bracketed = re.fullmatch(r"\[(.+)\](?::\d+)?", address)
    if bracketed:
        return bracketed[1]
    host, colon, port = address.rpartition(":")
    # HAProxy writes IPv6 without brackets, so what follows the last colon is the port there too.
    return host if colon and port.isdecimal() else address
