"""Builds the daemon's providers from settings: one or more AWS Regions and libvirt hosts, each with its fleets.

Why apart from `wiring`: the daemon, the diagnosis and recordings must open the same providers, and unused kinds are not imported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.config.checks_places import check_place
from autoscaler.config.policy import Policy
from autoscaler.errors import ConfigError
from autoscaler.ports import Clock, Provider
from autoscaler.ports.hints import HintSource
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.libvirt.settings import LibvirtSettings
from autoscaler.settings import PlaceSettings, Settings

if TYPE_CHECKING:
    from autoscaler.sources.cloudwatch_client import CloudWatchSettings

_OWN = tuple(PlaceSettings.model_fields)
"""Settings of one provider, which a daemon with one has beside all others."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where the VMs are; one of the two.

    Attributes:
        ec2: How EC2 is reached; None where the VMs are elsewhere.
        libvirt: Hosts with libvirt; None likewise.
        cloudwatch: How CloudWatch is reached: as EC2 is; None where that is not.
        hint_queue_url: Queue of EC2's events; None where none is read.
    """

    ec2: Ec2Settings | None = None
    libvirt: LibvirtSettings | None = None
    cloudwatch: CloudWatchSettings | None = None
    hint_queue_url: str | None = None

    @property
    def tells(self) -> bool:
        """Whether news of it can be heard."""
        return self.libvirt is not None or self.hint_queue_url is not None


@dataclass(frozen=True, slots=True)
class Clouds:
    """All places where this daemon has VMs.

    Attributes:
        by_name: By the names that the settings give them; the only one of settings without such names has an empty one.
    """

    by_name: Mapping[str, Cloud]

    def name_of(self, policy: Policy) -> str:
        """Which of them a policy means.

        Raises:
            ConfigError: None of them, or which of several is not said.
        """
        return provider_of(policy, self.by_name)

    def of(self, policy: Policy) -> Cloud:
        """Where the VMs of a policy are; raises as `name_of`."""
        return self.by_name[self.name_of(policy)]

    def ec2_of(self, policy: Policy) -> Ec2Settings | None:
        """How EC2 is reached for a policy, None where its VMs are elsewhere; raises as `name_of`."""
        return self.of(policy).ec2

    def cloudwatch_of(self, policy: Policy) -> CloudWatchSettings | None:
        """How CloudWatch is reached for a policy, None where its VMs are elsewhere; raises as `name_of`."""
        return self.of(policy).cloudwatch


def provider_of(policy: Policy, names: Collection[str]) -> str:
    """Which of the named providers a policy means.

    Raises:
        ConfigError: None of them, or which of several is not said.
    """
    for finding in check_place(policy, names):
        raise ConfigError(f"fleet {policy.fleet}: {finding.message}; {finding.advice}")
    return next(iter(names)) if policy.provider is None else policy.provider


def clouds_of(settings: Settings) -> Clouds:
    """Where the settings say that VMs are.

    Raises:
        ConfigError: They name AWS and libvirt for one place, or no place at all, or one of them twice.
    """
    if not settings.providers:
        return Clouds({"": _cloud(settings, settings, "")})
    beside = [
        name for name in _OWN if getattr(settings, name) != PlaceSettings.model_fields[name].get_default()
    ]
    if beside:
        raise ConfigError(
            f"{', '.join(beside)} and [providers.…] are set: with several providers each has such settings in its own table"
        )
    clouds = {name: _cloud(settings, given, name) for name, given in settings.providers.items()}
    _refuse_the_same(clouds)
    return Clouds(clouds)


def _cloud(settings: Settings, given: PlaceSettings, name: str) -> Cloud:
    aws = [each for each in _OWN if each.startswith("aws_") and getattr(given, each)]
    where = f"[providers.{name}]: " if name else ""
    if not given.libvirt_uris:
        if not given.aws_region:
            advice = (
                "name it by aws_region"
                if name
                else "name it with --region, AUTOSCALER_AWS_REGION or aws_region in autoscaler.toml"
            )
            raise ConfigError(
                f"{where}no AWS Region is set; {advice}, or name hosts with libvirt by libvirt_uris"
            )
        return Cloud(
            ec2=_ec2(given, where),
            cloudwatch=_cloudwatch(given),
            hint_queue_url=given.aws_hint_queue_url or None,
        )
    if aws:
        raise ConfigError(
            f"{where}libvirt_uris and {', '.join(aws)} are set, but a provider is either one or the other: leave out one, or give each a table [providers.NAME]"
        )
    libvirt = LibvirtSettings(given.libvirt_uris, given.libvirt_heed_memory, **_waits(settings))
    return Cloud(libvirt=libvirt)


def _refuse_the_same(clouds: Mapping[str, Cloud]) -> None:
    """What is one account's has one budget of API calls, and a host one count of its free memory."""
    seen: dict[object, str] = {}
    for name, cloud in clouds.items():
        its: Iterable[object] = (cloud.ec2,) if cloud.libvirt is None else cloud.libvirt.uris
        for each in its:
            if each in seen:
                what = "the same Region, reached in the same way" if cloud.ec2 else f"{each} both"
                raise ConfigError(
                    f"[providers.{seen[each]}] and [providers.{name}] name {what}; leave out one"
                )
            seen[each] = name


async def open_provider(cloud: Cloud, clock: Clock) -> Provider:
    """The provider itself.

    Raises:
        ConfigError: It cannot be opened as the settings say.
    """
    if cloud.libvirt is not None:
        from autoscaler.providers.libvirt.provider import LibvirtProvider

        return await LibvirtProvider.open(cloud.libvirt, clock)
    assert cloud.ec2 is not None
    from autoscaler.providers.ec2.provider import Ec2Provider

    return await Ec2Provider.open(cloud.ec2, clock)


def budgeted(cloud: Cloud, provider: Provider, clock: Clock) -> Provider:
    """The provider within its budget of API calls, where it has one: hosts of one's own count no calls."""
    if cloud.ec2 is None:
        return provider
    from autoscaler.providers.budget import CallBudget
    from autoscaler.providers.budgeted import BudgetedProvider

    return BudgetedProvider(provider, CallBudget(clock), clock)


async def open_hints(cloud: Cloud, provider: Provider) -> HintSource | None:
    """The cloud's own news: of a queue that the settings name, or of the hosts; None where there is none.

    Args:
        cloud: Where.
        provider: Opened, and without a budget.

    Raises:
        ConfigError: The queue cannot be opened as the settings say.
    """
    if cloud.libvirt is not None:
        from autoscaler.providers.libvirt.provider import LibvirtProvider

        return provider.hints if isinstance(provider, LibvirtProvider) else None
    if not cloud.hint_queue_url or cloud.ec2 is None:
        return None
    from autoscaler.providers.ec2.hints import HintQueue

    return await HintQueue.open(cloud.ec2, cloud.hint_queue_url)


def _cloudwatch(given: PlaceSettings) -> CloudWatchSettings:
    from autoscaler.sources.cloudwatch_client import CloudWatchSettings

    secret = given.aws_secret_access_key
    return CloudWatchSettings(
        region=given.aws_region,
        endpoint_url=given.aws_cloudwatch_endpoint_url,
        profile=given.aws_profile,
        access_key_id=given.aws_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
    )


def _waits(settings: Settings) -> dict[str, float]:
    """A host is waited for so long that the others' answers still come within the tick's own patience, in seconds."""
    return {
        "listing_s": 0.8 * min(settings.observe_timeout_s, 0.6 * settings.tick_s),
        "batch_s": 0.4 * settings.act_timeout_s,
        "call_s": 0.5 * settings.act_timeout_s,
    }


def _ec2(given: PlaceSettings, where: str) -> Ec2Settings:
    secret = given.aws_secret_access_key
    try:
        return Ec2Settings(
            region=given.aws_region,
            endpoint_url=given.aws_endpoint_url,
            profile=given.aws_profile,
            access_key_id=given.aws_access_key_id,
            secret_access_key=secret.get_secret_value() if secret else None,
        )
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None
