"""Policy section: how Prometheus is queried, with address, credentials, query, and the mapping from series to VMs."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from autoscaler.config.quantities import DURATION, MATCHERS, Matchers, Quantity, refuse, shown
from autoscaler.config.section import DAY_S, HOUR_S, Filled, Off, Section, Url

FLEET = "{fleet}"
"""Placeholder for the fleet's name in queries, selections and headers."""
SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):\s*([\x20-\x7e]*\S)\s*")


def _plain_address(raw: object) -> object:
    if isinstance(raw, str):
        try:
            parts = urlsplit(raw)
        except ValueError:
            raise refuse(
                f"{shown(raw)} is not an address", "write for example http://127.0.0.1:9090"
            ) from None
        if "@" in parts.netloc:
            raise refuse("an address with a password in it would be logged", "use `basic_auth` instead")
        if parts.query or parts.fragment or parts.path.rstrip("/").endswith("/api/v1/query"):
            raise refuse(
                f"{shown(raw)} is more than the address of a Prometheus server",
                "leave out /api/v1/query and what follows it",
            )
    return raw


def _header(raw: object) -> object:
    found = _HEADER.fullmatch(raw) if isinstance(raw, str) else None
    if found is None:
        raise refuse(f"{shown(raw)} is not a header", "write for example `X-Scope-OrgID: web`")
    if found[1].lower() in SECRET_HEADERS:
        raise refuse(
            f"the header {found[1]} would put a secret into a policy",
            "use `bearer_token_file` or `basic_auth`, which keep secrets in files",
        )
    return f"{found[1]}: {found[2]}"


PlainUrl: TypeAlias = Annotated[Url, BeforeValidator(_plain_address)]
Header: TypeAlias = Annotated[str, BeforeValidator(_header)]


class JoinSection(Section):
    """How series are assigned to VMs."""

    label: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = Field(
        "instance", description="Label that names the VM."
    )
    by: Literal["address", "id", "name"] = Field(
        "address",
        description="What the label holds: the VM's private address (a port after it does not matter), its id, or its tag Name.",
    )


class TlsSection(Section):
    """How an https address is verified."""

    ca_file: Filled | None = Field(None, description="Certificates to trust instead of the system's.")
    cert_file: Filled | None = Field(None, description="Client certificate, if the server asks for one.")
    key_file: Filled | None = Field(
        None, description="Key of the client certificate, if it is not in the same file."
    )
    verify: bool = Field(True, description="Whether the server's certificate and name are checked.")


class BasicAuthSection(Section):
    """A name and a password."""

    username: Annotated[str, Field(pattern=r"^[^:\s]+$")] = Field(description="The name, without a colon.")
    password_file: Filled = Field(
        description="File that holds the password and nothing else; read again when it changes."
    )


class PrometheusInput(Section):
    """How a Prometheus server is queried (Mimir, Thanos and VictoriaMetrics have the same API)."""

    url: PlainUrl = Field(
        "http://127.0.0.1:9090", description="Its address, including its path, if any, without /api."
    )
    query: Filled = Field(
        description="PromQL: one series per VM, or for kind total one series; {fleet} stands for the fleet's name. Fleets with the same query share one question per tick."
    )
    join: Annotated[JoinSection | None, Off] = Field(
        None,
        description="How series belong to VMs; if not set, label instance by address (kind total: none).",
    )
    select: Annotated[Matchers, MATCHERS] | None = Field(
        None,
        description="Labels that a series must carry to be this fleet's, for example '{service=\"{fleet}\"}' in quotes, so that one query serves many fleets.",
    )
    timeout_s: Annotated[float, Quantity(DURATION, 0.1, 60)] = Field(
        5.0, description="How long one answer may take."
    )
    lag_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        0.0,
        description="How much older values are than their Prometheus timestamp, for example the step of a recording rule.",
    )
    bearer_token_file: Filled | None = Field(
        None, description="File that holds a bearer token and nothing else; read again when it changes."
    )
    basic_auth: Annotated[BasicAuthSection | None, Off] = Field(None, description="A name and a password.")
    tls: TlsSection = Field(TlsSection(), description="How an https address is verified.")
    headers: Annotated[tuple[Header, ...], Field(strict=False, max_length=20)] = Field(
        (), description="Headers sent with each question, for example `X-Scope-OrgID: web`; no secrets."
    )
    history_query: Filled | None = Field(
        None,
        description="PromQL of the fleet's demand as one series, in the unit of the signal summed over VMs, for learning from the past; if not set, sum(query).",
    )


class BackfillSection(Section):
    """What is learned at startup from earlier demand."""

    over_s: Annotated[float, Quantity(DURATION, HOUR_S, 60 * DAY_S)] = Field(
        8 * DAY_S, description="How far back."
    )
    from_source: bool = Field(
        True,
        description="Whether to read the source's own history, if it has one (prometheus); the daemon's journal is always read.",
    )
