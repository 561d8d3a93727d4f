"""Pushed samples: POST /v1/samples on the daemon's HTTP site, and the early turn that they may trigger.

    Authorization: Bearer TOKEN
    Content-Type: application/json               [{"fleet", "vm"?, "value", "timestamp", "id"?}, …]
    Content-Type: application/x-protobuf         Prometheus remote write 1.0 (Content-Encoding: snappy)

    200, 204   all samples were accepted        401, 403   no token, an expired one, or one for other fleets
    400        malformed (nothing was accepted), or some samples were refused (the others were accepted)
    408, 413, 415   too slow, too large, of another type
    429, 503   nothing was taken; send the same request again after Retry-After

Only 429 and 503 make a sender repeat a request, as Prometheus does: it keeps everything else waiting meanwhile. So neither is given for
a request whose samples were judged one by one: the accepted ones would come again, and the refused ones would be too old by then.

Rules of this file: the sender is told what is wrong, where, and what to do. The operator learns it too, from the status, metrics
and log. Requests are bounded in number, and each in size (compressed and decompressed), time, and samples per second, so
that no sender can delay ticks. Tokens and bodies are never logged.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError

from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.waking import Cause, needs_more
from autoscaler.errors import OversizedError, SourceError
from autoscaler.ports.pushing import (
    LONGEST_NAME,
    MOST_SAMPLES,
    PushedSample,
    Result,
    SampleFormat,
    SampleIntake,
    Taken,
)
from autoscaler.web.ingest_token import Holder, PushTokens
from autoscaler.words import counted

PATH = "/v1/samples"
READ_WITHIN_S = 10.0
"""Longest time that a body may take to arrive, seconds of the event loop."""
MOST_AT_ONCE = 32
"""Largest number of requests in progress; it bounds the memory that their bodies take."""
UNPACKED = 4
"""A body may decompress to at most this many times the size limit of bodies."""
TELL_EVERY_S = 60.0
_BEARER = "bearer "
_CUT_OFF = "the body is incomplete, or not compressed as its Content-Encoding says; send it again"


class Refused(StrEnum):
    """Why a request was refused as a whole."""

    UNAUTHORISED = "unauthorised"
    """The request has no token, or an unknown one."""
    EXPIRED = "expired"
    """The token has expired."""
    TOKEN_FILE = "token_file"  # noqa: S105  the reason, not a token
    """The token file cannot be used."""
    BUSY = "busy"
    """Too many requests are in progress."""
    TOO_FAST = "too_fast"
    """Too many samples per second."""
    TOO_SLOW = "too_slow"
    """The body did not arrive in time."""
    OVERSIZED = "oversized"
    """The body is too large, compressed or decompressed."""
    MALFORMED = "malformed"
    """The body does not have the format of its type."""
    UNSUPPORTED = "unsupported"
    """The content type is not supported."""


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Limits of pushed samples.

    Attributes:
        body_bytes: Largest body of a request.
        samples_per_s: Average rate over all requests; a burst may have five seconds' worth.
    """

    body_bytes: int = 1 << 20
    samples_per_s: float = 20_000.0


class _Sample(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    fleet: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    vm: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)] | None = None
    value: float
    timestamp: float | AwareDatetime
    id: Annotated[str, Field(max_length=LONGEST_NAME)] = ""

    def pushed(self) -> PushedSample:
        stamp = self.timestamp
        at_s = stamp if isinstance(stamp, float) else stamp.timestamp()
        return PushedSample(self.fleet, self.vm or "", self.value, at_s, self.id)


_WRITE = {
    "fleet": "write the name of the fleet, as text",
    "vm": "write what names the VM, as text, or leave it out",
    "value": "write a number, without quotes",
    "timestamp": "write epoch seconds as a number, or ISO 8601 with an offset in quotes (2026-03-01T08:00:00Z)",
    "id": "write a text, or leave it out",
}
"""What to write for a field that cannot be read."""


def _malformed(kind: str, location: tuple[int | str, ...], message: str) -> str:
    """Return where a body cannot be read, why, and what to write instead; the arguments are those of a pydantic error."""
    place = f"[{location[0]}]" + "".join(f".{step}" for step in location[1:2]) if location else "body"
    field = str(location[1]) if len(location) > 1 else ""
    if kind == "extra_forbidden":
        return f"{place} is not a field of a sample; there are {', '.join(_WRITE)}"
    if kind == "missing":
        return f"{place} is missing; {_WRITE[field]}"
    if field in _WRITE:
        return f"{place} cannot be read; {_WRITE[field]}"
    wanted = (
        ""
        if kind == "json_invalid"
        else '; write a list of samples: [{"fleet": …, "value": …, "timestamp": …}]'
    )
    return f"{place}: {message}{wanted}"


_SAMPLES = TypeAdapter(Annotated[list[_Sample], FailFast(), Field(max_length=MOST_SAMPLES)])


class _RefusedError(Exception):
    """Refuses a request as a whole."""

    def __init__(self, status: int, reason: Refused, text: str, retry_s: float = 0.0) -> None:
        super().__init__(text)
        self.status, self.reason, self.text, self.retry_s = status, reason, text, retry_s


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Number of refusals for one reason, with the time and text of the last."""

    count: int
    at_s: float
    text: str


class Ingest:
    """Receives pushed samples over HTTP.

    Args:
        daemon: The daemon whose fleets they are for.
        pushed: Where samples are stored; the fleets' sources read them there.
        tokens: The tokens that may push.
        packed: The format that bodies may have besides JSON.
        limits: Limits of requests.
    """

    def __init__(
        self,
        daemon: Daemon,
        pushed: SampleIntake,
        tokens: PushTokens,
        packed: SampleFormat,
        limits: IngestLimits | None = None,
    ) -> None:
        self.limits = limits or IngestLimits()
        self._daemon = daemon
        self._pushed = pushed
        self._tokens = tokens
        self._packed = packed
        self._under_way = 0
        self._allowed = self._most_at_once = 5.0 * self.limits.samples_per_s
        self._counted_s = daemon.clock.monotonic()
        self._results: Counter[Result] = Counter()
        self._troubles: dict[str, _Trouble] = {}
        self._last_at_s: float | None = None

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes that the site serves for pushing."""
        return [web.post(PATH, self.post)]

    def status(self) -> dict[str, Any]:
        """Return what was pushed and what was refused, for the status."""
        troubles = sorted(self._troubles.items(), key=lambda item: -item[1].at_s)
        return {
            "fleets": sorted(intake.fleet for intake in self._pushed.intakes),
            "last_at_s": self._last_at_s,
            "samples": {str(result): self._results[result] for result in Result if self._results[result]},
            "refused": [
                {"reason": reason, "count": each.count, "last_at_s": each.at_s, "text": each.text}
                for reason, each in troubles
            ],
            "token_file_problem": self._tokens.problem or None,
        }

    async def post(self, request: web.Request) -> web.Response:
        """Answer one request."""
        self._under_way += 1
        try:
            return await self._take(request)
        except _RefusedError as refused:
            self._daemon.telemetry.push_requests_refused.labels(str(refused.reason)).inc()
            self._trouble(str(refused.reason), 1, refused.text)
            headers = {"Retry-After": str(math.ceil(refused.retry_s))} if refused.retry_s else {}
            if refused.status == 401:
                headers["WWW-Authenticate"] = "Bearer"
            answer = web.json_response({"error": refused.text}, status=refused.status, headers=headers)
            if not request.content.at_eof():
                # The unread rest of the body would be taken for the next request.
                answer.force_close()
            return answer
        finally:
            self._under_way -= 1

    # ── one request ────────────────────────────────────────────────────────────────────────────────────

    async def _take(self, request: web.Request) -> web.Response:
        if self._under_way > MOST_AT_ONCE:
            text = f"{MOST_AT_ONCE} requests are in progress; send fewer and larger ones"
            raise _RefusedError(429, Refused.BUSY, text, 1.0)
        holder = self._holder(request)
        is_json = request.content_type == "application/json"
        if not is_json and request.content_type != self._packed.content_type:
            text = f"the type {request.content_type} is not read here; send application/json or {self._packed.content_type}"
            raise _RefusedError(415, Refused.UNSUPPORTED, text)
        body = await self._body(request)
        samples, unasked = self._from_json(body) if is_json else self._from_remote_write(request, body)
        self._slow_down(len(samples) + unasked)
        taken = self._pushed.take(samples, self._daemon.fleets.by_name, holder.fleets)
        self._note(taken, unasked)
        self._wake(taken)
        return _answer(taken, unasked, empty=not is_json)

    def _holder(self, request: web.Request) -> Holder:
        given = request.headers.get("Authorization", "")
        token = given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else ""
        holder = self._tokens.holder(token)
        if self._tokens.problem:
            raise _RefusedError(503, Refused.TOKEN_FILE, self._tokens.problem, 30.0)
        if not token:
            text = "no token came with the request; send the header `Authorization: Bearer TOKEN`"
            raise _RefusedError(401, Refused.UNAUTHORISED, text)
        if holder is None:
            text = "this token is not one of the file push_token_file; was it replaced there?"
            raise _RefusedError(401, Refused.UNAUTHORISED, text)
        if holder.expires_s is not None and self._daemon.clock.now() >= holder.expires_s:
            text = "this token has expired; write a new one into push_token_file and give it to the sender"
            raise _RefusedError(401, Refused.EXPIRED, text)
        return holder

    async def _body(self, request: web.Request) -> bytes:
        most = self.limits.body_bytes
        text = (
            f"the body is larger than {most:,} bytes; send fewer samples at once, or raise push_max_body_kb"
        )
        if (request.content_length or 0) > most:
            raise _RefusedError(413, Refused.OVERSIZED, text)
        parts, size = [], 0
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                async for part in request.content.iter_any():
                    size += len(part)
                    if size > most:
                        raise _RefusedError(413, Refused.OVERSIZED, text)
                    parts.append(part)
        except TimeoutError:
            text = f"the body did not arrive within {READ_WITHIN_S:g} s"
            raise _RefusedError(408, Refused.TOO_SLOW, text) from None
        except (web.RequestPayloadError, OSError):
            raise _RefusedError(400, Refused.MALFORMED, _CUT_OFF) from None
        packed = b"".join(parts)
        encoding = request.headers.get("Content-Encoding", "")
        body = _unpacked(packed, most) if encoding in {"gzip", "deflate"} else packed
        if len(body) > most:
            raise _RefusedError(413, Refused.OVERSIZED, text)
        return body

    def _from_json(self, body: bytes) -> tuple[list[PushedSample], int]:
        try:
            return [sample.pushed() for sample in _SAMPLES.validate_json(body)], 0
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            if first["type"] == "too_long":
                text = f"the request holds more than {MOST_SAMPLES:,} samples; send fewer at once"
                raise _RefusedError(413, Refused.OVERSIZED, text) from None
            text = (
                f"{_malformed(first['type'], first['loc'], first['msg'])}; nothing of the request was taken"
            )
            raise _RefusedError(400, Refused.MALFORMED, text) from None

    def _from_remote_write(self, request: web.Request, body: bytes) -> tuple[list[PushedSample], int]:
        encoding = request.headers.get("Content-Encoding", "")
        if encoding != self._packed.content_encoding or "proto=io." in request.headers.get(
            "Content-Type", ""
        ):
            text = "only remote write 1.0 is read here (snappy around prometheus.WriteRequest); set protobuf_message so"
            raise _RefusedError(415, Refused.UNSUPPORTED, text)
        try:
            return self._packed.read(body, UNPACKED * self.limits.body_bytes, self._pushed.intakes)
        except OversizedError as error:
            raise _RefusedError(413, Refused.OVERSIZED, str(error)) from None
        except SourceError as error:
            raise _RefusedError(400, Refused.MALFORMED, str(error)) from None

    def _slow_down(self, samples: int) -> None:
        """Take this number of samples from the token bucket, or refuse them and say when to try again."""
        now_s, per_s = self._daemon.clock.monotonic(), self.limits.samples_per_s
        passed_s = max(now_s - self._counted_s, 0.0)
        self._counted_s = now_s
        self._allowed = min(self._allowed + passed_s * per_s, self._most_at_once)
        # A request larger than the bucket is taken from a full bucket, which then stays empty for longer.
        lacking = min(samples, self._most_at_once) - self._allowed
        if lacking > 0.0:
            text = f"more than {per_s:,.0f} samples a second are pushed; push less often, or raise push_samples_per_s"
            raise _RefusedError(429, Refused.TOO_FAST, text, max(lacking / per_s, 1.0))
        self._allowed -= samples

    # ── what follows from it ───────────────────────────────────────────────────────────────────────────

    def _note(self, taken: Taken, unasked: int) -> None:
        by_result = Counter(taken.results)
        if unasked:
            by_result[Result.UNASKED] += unasked
        self._results += by_result
        for result, count in by_result.items():
            self._daemon.telemetry.push_samples.labels(str(result)).inc(count)
        if taken.fleets:
            self._last_at_s = self._daemon.clock.now()
        texts = {refusal.result: refusal.text for refusal in taken.refusals}
        for result, count in by_result.items():
            if result.refused:
                self._trouble(str(result), count, texts.get(result, ""))

    def _trouble(self, reason: str, count: int, text: str) -> None:
        now_s = self._daemon.clock.now()
        before = self._troubles.get(reason)
        text = text or (before.text if before else "")
        self._troubles[reason] = _Trouble(count + (before.count if before else 0), now_s, text)
        if before is None or not 0.0 <= now_s - before.at_s < TELL_EVERY_S:
            self._daemon.telemetry.log.warning("push_refused", text=f"{reason}: {text}")

    def _wake(self, taken: Taken) -> None:
        """Ask for an early turn for the fleets that should not wait for the next tick."""
        now_s = self._daemon.clock.now()
        waking = []
        for name in taken.fleets:
            fleet = self._daemon.fleets.by_name.get(name)
            if fleet is None:
                continue
            section = fleet.policy.signal.push
            wake = "shortage" if section is None else section.wake
            if wake == "any" or (wake == "shortage" and needs_more(fleet, *self._pushed.sum_of(name), now_s)):
                waking.append(name)
        if waking:
            self._daemon.waking.ask(waking, Cause.PUSH)


def _unpacked(packed: bytes, most: int) -> bytes:
    """Decompress a gzip or deflate body, up to one byte more than `most`.

    Raises:
        _RefusedError: The body is incomplete or not compressed like that.
    """
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)  # detects either format by its header
    try:
        body = unpacking.decompress(packed, most + 1)
    except zlib.error:
        raise _RefusedError(400, Refused.MALFORMED, _CUT_OFF) from None
    if not unpacking.eof and len(body) <= most:
        raise _RefusedError(400, Refused.MALFORMED, _CUT_OFF)
    return body


def _answer(taken: Taken, unasked: int, *, empty: bool) -> web.Response:
    """Return the response to the sender.

    The status is 403 if the token may push none of the samples, and 400 if any was refused otherwise, even for lack of room: the
    sender's next samples of that VM may find room, these should not be repeated.
    """
    refused = {result for result in taken.results if result.refused}
    if not refused and empty:
        return web.Response(status=204)
    said: dict[str, Any] = {str(result): count for result, count in taken.results.items() if count}
    if unasked:
        said[str(Result.UNASKED)] = unasked
    if not refused:
        return web.json_response(said)
    accepted = any(count for result, count in taken.results.items() if not result.refused)
    were = "was" if taken.refused == 1 else "were"
    rest = "; the others were accepted" if accepted else ""
    said["error"] = f"{counted(taken.refused, 'sample')} {were} refused{rest}"
    said["refused"] = [
        {"at": each.at, "reason": str(each.result), "text": each.text} for each in taken.refusals
    ]
    alone = len(refused) == len([count for count in taken.results.values() if count])
    if alone and refused == {Result.NOT_ALLOWED}:
        return web.json_response(said, status=403)
    return web.json_response(said, status=400)
