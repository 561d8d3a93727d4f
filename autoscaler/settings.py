"""Process settings: where things are and how to reach them. What a fleet does is in its policy.

Sources, strongest first: command line, environment (`AUTOSCALER_…`), `autoscaler.toml` (in the working
directory, or the file named by `AUTOSCALER_CONFIG`), defaults.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from autoscaler.errors import ConfigError

PREFIX = "AUTOSCALER_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
CONTROL_NAME = "control.sock"
DEFAULT_CONFIG = Path("autoscaler.toml")


def _unset(value: Any) -> Any:
    """Treat an empty text as unset: a shipped line without its comment sign, or `NAME=` in an environment file."""
    return None if value == "" else value


def _listed(value: Any) -> Any:
    """Split a text from the environment into words; other values, such as a list from a file, are returned as they are."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _address(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        named = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise ValueError("this is no address; write for example http://127.0.0.1:4599")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address with a user or password in it would be logged; leave them out")
    return value


_Unset = BeforeValidator(_unset)
_Address = Annotated[str | None, AfterValidator(_address), _Unset]
_Uris = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class PlaceSettings(BaseModel):
    """Where VMs are and how to reach them; shared by the settings of an only place and those of each of several places."""

    aws_region: str = Field("", description="AWS Region of the VMs.")
    aws_endpoint_url: _Address = Field(
        None, description="EC2 endpoint to use instead of AWS's, for the embedded cloud."
    )
    aws_cloudwatch_endpoint_url: _Address = Field(
        None, description="CloudWatch endpoint to use instead of AWS's, for tests."
    )
    aws_profile: Annotated[str | None, _Unset] = Field(
        None, description="Profile of the AWS configuration files."
    )
    aws_access_key_id: Annotated[str | None, _Unset] = Field(
        None, description="Static key; on AWS leave it to the instance role."
    )
    aws_secret_access_key: Annotated[SecretStr | None, _Unset] = Field(
        None, description="Belongs to aws_access_key_id."
    )
    aws_hint_queue_url: _Address = Field(
        None, description="SQS queue that EventBridge fills with EC2 events; hints only shorten reactions."
    )
    libvirt_uris: _Uris = Field(
        (),
        description="Hosts with libvirt to use instead of AWS, for example qemu:///system or "
        "qemu+ssh://user@host/system; separate several with a comma or a space.",
    )
    libvirt_heed_memory: bool = Field(
        True,
        description="Start no VM that does not fit into its host's free memory; turn off if you overcommit memory.",
    )


class ProviderSettings(PlaceSettings):
    """Settings of one of several places: a Region of an AWS account, or hosts with libvirt."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]


class _DaemonSettings(BaseModel):
    """How a daemon works and how to reach it. A base class, so that references list these fields before those of places."""

    policies: Path = Field(Path("policies"), description="Directory of policy files.")
    state_dir: Path = Field(Path("state"), description="Directory of the journal; one daemon at a time.")
    lease: bool = Field(
        True,
        description="Tag VMs of each fleet as this daemon's, and leave alone fleets that another daemon has tagged.",
    )
    tick_s: float = Field(10.0, ge=1.0, le=300.0, description="Seconds between decisions.")
    observe_timeout_s: float = Field(
        5.0, gt=0.0, le=120.0, description="Longest wait for metrics and for the listing."
    )
    act_timeout_s: float = Field(
        30.0, gt=0.0, le=300.0, description="Longest wait for one start or stop call."
    )
    http_host: str = Field("127.0.0.1", description="Address of /metrics, /healthz and the status API.")
    http_port: int = Field(9412, ge=0, le=65535, description="Its port; 0 takes any free one.")
    control_socket: Annotated[Path | None, _Unset] = Field(
        None, description="Unix socket for pause, resume and override; if not set, control.sock in state_dir."
    )
    control_group: str = Field(
        "",
        description="Group that may use the socket; empty means the daemon's own (under systemd: Group= of the unit).",
    )
    push_token_file: Annotated[Path | None, _Unset] = Field(
        None,
        description="File of tokens that allow pushing samples to /v1/samples, one per line; if not set, pushing is off.",
    )
    push_max_body_kb: int = Field(
        1024, ge=1, le=65_536, description="Largest body of one push, in kilobytes."
    )
    push_samples_per_s: float = Field(
        20_000.0, gt=0.0, description="Most pushed samples per second, from all senders together."
    )
    push_max_vms: int = Field(
        100_000,
        ge=1,
        description="Most VMs whose pushed samples are kept; one fleet may use a tenth of that.",
    )


class Settings(PlaceSettings, _DaemonSettings, BaseSettings):
    """Every setting with its default; durations are seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    retention_days: float = Field(
        30.0, gt=0.0, description="How long the journal keeps ticks, actions and events."
    )
    retention_mb: float = Field(2048.0, gt=1.0, description="Largest size of the journal, in megabytes.")
    log_format: Literal["console", "json"] = Field("console", description="Format of log lines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    providers: dict[ProviderName, ProviderSettings] = Field(
        {},
        description="Several places in one daemon, instead of the settings above that start with aws_ and libvirt_. Each place has "
        "a name, and has those settings in a table of its own, [providers.NAME], at the end of this file; policies name "
        "their place by `provider`.",
    )

    @property
    def place_names(self) -> tuple[str, ...] | None:
        """Names of the places where VMs are; one empty name for an only, unnamed place; None if no place is configured."""
        if self.providers:
            return tuple(self.providers)
        return ("",) if self.aws_region or self.libvirt_uris else None

    @property
    def control_path(self) -> Path:
        """Path of the Unix socket for operators' commands."""
        return self.control_socket or self.state_dir / CONTROL_NAME

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank sources: command line over environment over file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def config_file() -> Path:
    """The settings file in use; it need not exist unless the environment names it."""
    return Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings.

    Args:
        **overrides: Values from the command line; None means not given.

    Raises:
        ConfigError: The file is missing or not TOML, or a value is wrong; the message says which and why.
    """
    if os.environ.get(CONFIG_VARIABLE) and not config_file().is_file():
        msg = f"{CONFIG_VARIABLE} names {config_file()}, which does not exist"
        raise ConfigError(msg)
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError(_words(error)) from None
    except OSError as error:
        msg = f"{config_file()} cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    except SettingsError as error:
        raise ConfigError(_unparsed(str(error))) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{config_file()}: the text is not UTF-8 (line {line}); save it as UTF-8") from None
    except ValueError as error:
        raise ConfigError(f"{config_file()} is not TOML: {_toml_words(str(error))}") from None


def _unparsed(said: str) -> str:
    """The message for an environment variable that is not valid JSON; only tables are read as JSON."""
    name = next((field for field in Settings.model_fields if f'"{field}"' in said), "")
    return (
        f"{PREFIX}{name.upper()} cannot be read: it is a table, which must be JSON in the environment; it is easier to "
        f"write it in {config_file()}, as [{name}.NAME]"
    )


def _toml_words(said: str) -> str:
    """The parser's message, with our own wording for duplicate keys and missing values."""
    what, _, where = said.partition(" (at ")
    if what.startswith(("Cannot overwrite", "Cannot declare")):
        what = "a setting or table occurs twice; keep one of them"
    elif what.startswith("Invalid value"):
        what = 'there is no valid value after "="; texts need quotes'
    else:
        what = f"{what[:1].lower()}{what[1:]}"
    return f"{what} ({where}" if where else what


def unknown_variables(names: Iterable[str]) -> tuple[str, ...]:
    """Return one sentence, for people, per environment variable that looks like a setting but is none.

    Args:
        names: Names of all environment variables.
    """
    known = [CONFIG_VARIABLE.removeprefix(PREFIX), *(name.upper() for name in Settings.model_fields)]
    said = []
    for name in sorted(names):
        # Case does not matter, as for the settings themselves.
        given = name.upper().removeprefix(PREFIX)
        if given == name.upper() or given in known:
            continue
        near = difflib.get_close_matches(given, known, 1)
        advice = f"did you mean {PREFIX}{near[0]}?" if near else "see the settings in README.md"
        said.append(f"{name} is not a setting and has no effect; {advice}")
    return tuple(said)


def _words(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            fields = Settings.model_fields if len(item["loc"]) == 1 else ProviderSettings.model_fields
            near = difflib.get_close_matches(str(item["loc"][-1]), fields, 1)
            advice = f"did you mean {near[0]}? Known" if near else "known"
            known = ", ".join(sorted(fields))
            lines.append(f"{config_file()}: {name} is not a setting; {advice} are: {known}")
        else:
            where = f"(in {config_file()} or AUTOSCALER_{str(item['loc'][0]).upper()})"
            why = (
                item["msg"].removeprefix("Value error, ")
                if item["type"] == "value_error"
                else item["msg"].lower()
            )
            lines.append(f"setting {name}: {why} {where}")
    return "\n".join(lines)
