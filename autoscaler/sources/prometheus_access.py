"""One bounded query to Prometheus (Mimir, Thanos, VictoriaMetrics), with its errors as sentences.

Why its own module: live queries and history use the same address and credentials, and each way in which an answer can
fail needs its own advice. Whatever comes back (nothing, a web page, garbage, an endless body), the result is a value
or a SourceError within `timeout_s` and `MAX_BYTES`.

Rules of this file: read only; queries are not interpreted. Credential files are read again when they change. Their
contents, and headers, never appear in a message. Redirects are not followed and proxies not used: credentials are meant
for the address that the policy names.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp

from autoscaler.errors import SourceError
from autoscaler.ports import Clock
from autoscaler.sources.fan_out import plain_reason

MAX_BYTES = 8 << 20
"""Largest answer in bytes, uncompressed: some 30,000 series."""
AT_ONCE = 8
"""Most concurrent queries to one address; together with `MAX_BYTES`, this bounds memory."""
HOLD_S = 15.0
LONGEST_HOLD_S = 60.0
"""Seconds without queries after an address has answered 429: the default if it names no time, and the longest."""

_GATEWAY = "; a proxy in front of it does not reach it, or not in time"
_CAUSES = {
    502: _GATEWAY,
    503: "; after a start, it reads its log first, which may take minutes; later, see whether it is overloaded",
    504: _GATEWAY,
}

Stat: TypeAlias = tuple[int, int, int]


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Build a TLS context that trusts the authorities in this file, or without one those of the system.

    Since 3.13, Python by default refuses authorities that do not state the use of their key. `openssl req -x509` makes such
    authorities, and Prometheus and curl accept them. So this check is off on all versions of Python.

    Raises:
        OSError: The file cannot be read.
        ssl.SSLError: The file holds no certificates.
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


@dataclass(frozen=True, slots=True)
class Tls:
    """How an https address is verified.

    Attributes:
        ca_file: Certificates to trust instead of the system's.
        cert_file, key_file: Client certificate and its key, which may be in the same file.
        verify: Whether the server's certificate and name are checked.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """Address and credentials of a Prometheus; equal ones share connections.

    Attributes:
        url: URL without /api and without credentials.
        timeout_s: Longest wait for one answer, from the request to its last byte.
        tls: TLS settings for https.
        bearer_token_file: File whose content is sent as bearer token.
        username, password_file: Basic authentication, sent if there is a username.
        headers: Headers sent with each request, for example X-Scope-OrgID.
        section: The section of the policy with these settings, for advice.
    """

    url: str
    timeout_s: float = 5.0
    tls: Tls = field(default_factory=Tls)
    bearer_token_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    headers: tuple[tuple[str, str], ...] = ()
    section: str = "signal.prometheus"


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer from Prometheus.

    Attributes:
        kind: Its `resultType`.
        result: Its `result`, of any shape.
        warnings: Its warnings.
    """

    kind: str
    result: Any
    warnings: tuple[str, ...] = ()


class PrometheusAccess:
    """Queries one address. Must be used within one event loop.

    Args:
        address: Address and credentials.
        clock: Clock for pauses.
        max_bytes: Largest answer, uncompressed.
    """

    def __init__(self, address: Address, clock: Clock, max_bytes: int = MAX_BYTES) -> None:
        self.address = address
        self._clock = clock
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None
        self._before: aiohttp.ClientSession | None = None
        self._trusted: dict[Path, Stat] = {}
        self._secrets: dict[Path, tuple[Stat, str]] = {}
        self._held_until_s = float("-inf")
        self.trouble = ""
        """Why changed files of the TLS settings are not used yet; empty if they are."""

    async def ask(self, path: str, form: Mapping[str, str]) -> Answer:
        """POST a form to `/api/v1/` and the path.

        Raises:
            SourceError: There is no useful answer. The message says why and what to do.
        """
        where, section = self.address.url, self.address.section
        if self._clock.monotonic() < self._held_until_s:
            raise SourceError(self._busy())
        try:
            async with asyncio.timeout(self.address.timeout_s):
                return await self._ask(path, form)
        except TimeoutError:
            raise SourceError(
                f"{where}: no answer within {self.address.timeout_s:g} s; is it overloaded, or the query slow? "
                f"A recording rule makes it fast, `{section}.timeout` allows more"
            ) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise SourceError(
                f"{where}: its certificate is not trusted ({_certificate_reason(error)}); name the authority with "
                f"`{section}.tls.ca_file`, and check that `url` has the name that is in the certificate"
            ) from None
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise SourceError(
                f"{where}: no TLS connection ({_brief(error)}); check `{section}.tls` and whether the port speaks https"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise SourceError(
                f"{where}: {plain_reason(error.os_error)}; is it running, and is `{section}.url` right?"
            ) from None
        except (
            aiohttp.ClientPayloadError,
            aiohttp.ClientOSError,
            aiohttp.ServerDisconnectedError,
            ConnectionError,
        ):
            raise SourceError(f"{where}: the connection was closed before the answer was complete") from None
        except aiohttp.InvalidURL:
            raise SourceError(f"{where} is not an address (`{section}.url`)", retryable=False) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceError(f"{where}: the answer cannot be read ({type(error).__name__})") from None

    async def close(self) -> None:
        """Release connections."""
        sessions = (self._session, self._before)
        self._session = self._before = None
        for session in sessions:
            if session is not None:
                await session.close()

    # ── one question ───────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, path: str, form: Mapping[str, str]) -> Answer:
        session = await self._open()
        url = f"{self.address.url.rstrip('/')}/api/v1/{path}"
        headers = self._authorization()
        try:
            return await self._post(session, url, form, headers)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # The other side had closed or reset a kept connection. A query can safely be repeated.
            return await self._post(session, url, form, headers)

    async def _post(
        self, session: aiohttp.ClientSession, url: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> Answer:
        async with session.post(
            url, data=dict(form), headers=dict(headers), allow_redirects=False
        ) as response:
            if 300 <= response.status < 400:
                raise self._error(
                    f"it redirects elsewhere ({response.status}); write the address that it redirects to"
                )
            body = await self._body(response)
            return self._read(response.status, body, response.headers.get("Retry-After", ""))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > self._max_bytes:
                response.close()
                raise self._error(
                    f"the answer is larger than {self._max_bytes >> 20} MiB; let the query give fewer series, for "
                    "example by a label of the fleet or with sum by (…)"
                )
        return bytes(body)

    def _read(self, status: int, body: bytes, retry_after: str) -> Answer:
        section = self.address.section
        if status in {401, 403}:
            self._secrets.clear()  # a token renewed quickly may leave the file's time and size as they were
            raise self._error(
                f"it denies access ({status}): the credentials are missing, wrong or expired; see "
                f"`{section}.bearer_token_file` or `{section}.basic_auth`"
            )
        if status == 429:
            wished = float(retry_after) if retry_after.isdecimal() else HOLD_S
            self._held_until_s = self._clock.monotonic() + min(max(wished, 1.0), LONGEST_HOLD_S)
            raise SourceError(self._busy())
        try:
            found = json.loads(body)
            good, data = found["status"] == "success", found.get("data")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._strange(status, body) from None
        if not good:
            raise self._failed(status, found)
        if found.get("isPartial"):
            raise self._error(
                "the answer is partial, which would look like less demand; some of its stores are unavailable"
            )
        if not isinstance(data, dict) or "result" not in data:
            raise self._strange(status, body)
        return Answer(str(data.get("resultType", "")), data["result"], _texts(found.get("warnings")))

    def _failed(self, status: int, found: Mapping[str, Any]) -> SourceError:
        why = f"{found.get('errorType', status)}: {_brief(found.get('error', 'no reason given'), 300)}"
        if status >= 500:
            return self._error(f"the query failed ({why})")
        return self._error(f"it refuses the query ({why}); try the query on its own page")

    def _strange(self, status: int, body: bytes) -> SourceError:
        section = self.address.section
        head = body[:2048].lstrip().lower()
        if status == 404:
            return self._error(
                f"nothing is there (404); does `{section}.url` need a path, such as /prometheus?"
            )
        if status >= 500:
            return self._error(f"it is in trouble (status {status}){_CAUSES.get(status, '')}")
        if status == 200 and head.startswith(b'{"status"'):
            return self._error(
                "the answer ends in the middle; does a proxy in front of it cut answers, or did it stop just then?"
            )
        if head.startswith((b"<html", b"<!doctype")) or b"<html" in head:
            return self._error(
                f"a web page came instead of an answer (status {status}); is that the address of Prometheus itself, or "
                "is there a login before it?"
            )
        return self._error(
            f"the answer (status {status}) is not that of a Prometheus; is `{section}.url` right?"
        )

    def _error(self, what: str) -> SourceError:
        return SourceError(f"{self.address.url}: {what}")

    def _busy(self) -> str:
        return (
            f"{self.address.url}: it asks for fewer queries (429) and is left alone for up to {LONGEST_HOLD_S:g} s; "
            "raise its limit, or let fleets share one query"
        )

    # ── credentials ────────────────────────────────────────────────────────────────────────────────────

    async def _open(self) -> aiohttp.ClientSession:
        """Return the session. A new one is made when a file of the TLS settings has changed.

        If the changed files cannot be used, the last session is: whoever renews them may write one after the other.
        """
        tls = self.address.tls
        files = [f for f in (tls.ca_file or _system_authorities(), tls.cert_file, tls.key_file) if f]
        trusted = {file: _stat(file) for file in files}
        if self._session is not None and trusted == self._trusted:
            self.trouble = ""
            return self._session
        try:
            context = self._context()
        except SourceError as error:
            if self._session is None:
                raise
            self.trouble = f"{error}; what was in them before is used until they can be"
            return self._session
        self.trouble = ""
        connector = aiohttp.TCPConnector(ssl=context, limit=AT_ONCE, ttl_dns_cache=60)
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=dict(self.address.headers),
            timeout=aiohttp.ClientTimeout(total=self.address.timeout_s),
            trust_env=False,
        )
        # Queries may still use the previous session, so it is closed only at the next change.
        given_up, self._before = self._before, self._session
        self._session, self._trusted = session, trusted
        if given_up is not None:
            await given_up.close()
        return session

    def _context(self) -> ssl.SSLContext | bool:
        tls, section = self.address.tls, self.address.section
        if not self.address.url.startswith("https:"):
            return True
        try:
            context = trusting(tls.ca_file)
            if tls.cert_file:
                context.load_cert_chain(tls.cert_file, tls.key_file)
        except (OSError, ssl.SSLError) as error:
            raise self._error(f"the files of `{section}.tls` cannot be used ({_brief(error)})") from None
        if not tls.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def _authorization(self) -> dict[str, str]:
        address = self.address
        if address.bearer_token_file:
            return {"Authorization": f"Bearer {self._secret(address.bearer_token_file)}"}
        if address.username:
            password = self._secret(address.password_file) if address.password_file else ""
            both = base64.b64encode(f"{address.username}:{password}".encode()).decode()
            return {"Authorization": f"Basic {both}"}
        return {}

    def _secret(self, file: Path) -> str:
        stat = _stat(file)
        known = self._secrets.get(file)
        if known is not None and known[0] == stat:
            return known[1]
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise self._error(f"the file {file} cannot be read ({_brief(error)})") from None
        if not text or any(ord(letter) < 32 for letter in text):
            raise self._error(f"the file {file} must hold the secret on one line, and nothing else")
        self._secrets[file] = stat, text
        return text


def _system_authorities() -> Path | None:
    """The file of the authorities that this system trusts, which a session reads once; None if it has a folder only."""
    found = ssl.get_default_verify_paths().cafile
    return Path(found) if found else None


def _stat(file: Path) -> Stat:
    """Values that change with a file's content; zeros if the file does not exist, which reading it will report."""
    try:
        found = file.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino


def _brief(error: object, length: int = 120) -> str:
    """The message of an error on one line, of bounded length; for an OSError without its file name and number."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join((words or type(error).__name__).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _certificate_reason(error: aiohttp.ClientConnectorCertificateError) -> str:
    inner = error.certificate_error
    return getattr(inner, "verify_message", "") or _brief(inner)


def _texts(found: object) -> tuple[str, ...]:
    if not isinstance(found, Iterable) or isinstance(found, str):
        return ()
    return tuple(_brief(text, 200) for text in found)
