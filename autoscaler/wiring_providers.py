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
"""Names of the settings of one provider. With several providers, they are set in each provider's table instead."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """A place with VMs: either a Region of AWS or hosts with libvirt.

    Attributes:
        ec2: Settings for EC2; None with libvirt.
        libvirt: Settings for libvirt hosts; None with EC2.
        cloudwatch: Settings for CloudWatch in the same account and Region; None with libvirt.
        hint_queue_url: URL of the queue with EC2's events; None if no queue is read.
    """

    ec2: Ec2Settings | None = None
    libvirt: LibvirtSettings | None = None
    cloudwatch: CloudWatchSettings | None = None
    hint_queue_url: str | None = None

    @property
    def may_give_hints(self) -> bool:
        """Whether it may have a source of hints."""
        return self.libvirt is not None or self.hint_queue_url is not None


@dataclass(frozen=True, slots=True)
class Clouds:
    """All places where this daemon has VMs.

    Attributes:
        by_name: The places by the names that the settings give them. A single place without a name has the empty name.
    """

    by_name: Mapping[str, Cloud]

    def name_of(self, policy: Policy) -> str:
        """The name of the place that a policy refers to.

        Raises:
            ConfigError: There is no such place, or there are several and the policy names none.
        """
        return provider_of(policy, self.by_name)

    def of(self, policy: Policy) -> Cloud:
        """The place of a policy's VMs. Raises like `name_of`."""
        return self.by_name[self.name_of(policy)]

    def ec2_of(self, policy: Policy) -> Ec2Settings | None:
        """The EC2 settings for a policy; None if its VMs are elsewhere. Raises like `name_of`."""
        return self.of(policy).ec2

    def cloudwatch_of(self, policy: Policy) -> CloudWatchSettings | None:
        """The CloudWatch settings for a policy; None if its VMs are elsewhere. Raises like `name_of`."""
        return self.of(policy).cloudwatch


def provider_of(policy: Policy, names: Collection[str]) -> str:
    """The name of the provider that a policy refers to, out of `names`.

    Raises:
        ConfigError: There is no such provider, or there are several and the policy names none.
    """
    for finding in check_place(policy, names):
        raise ConfigError(f"fleet {policy.fleet}: {finding.message}; {finding.advice}")
    return next(iter(names)) if policy.provider is None else policy.provider


def clouds_of(settings: Settings) -> Clouds:
    """The places that the settings describe.

    Raises:
        ConfigError: One place has settings for both AWS and libvirt, or for neither; or a place is described twice.
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
    """Refuse places that share an account or a host: each has only one API budget, or one count of free memory."""
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
    """Open the provider of a place.

    Raises:
        ConfigError: It cannot be opened with these settings.
    """
    if cloud.libvirt is not None:
        from autoscaler.providers.libvirt.provider import LibvirtProvider

        return await LibvirtProvider.open(cloud.libvirt, clock)
    assert cloud.ec2 is not None
    from autoscaler.providers.ec2.provider import Ec2Provider

    return await Ec2Provider.open(cloud.ec2, clock)


def budgeted(cloud: Cloud, provider: Provider, clock: Clock) -> Provider:
    """Limit a provider to its budget of API calls. Hosts with libvirt have no such budget."""
    if cloud.ec2 is None:
        return provider
    from autoscaler.providers.budget import CallBudget
    from autoscaler.providers.budgeted import BudgetedProvider

    return BudgetedProvider(provider, CallBudget(clock), clock)


async def open_hints(cloud: Cloud, provider: Provider) -> HintSource | None:
    """Open the place's source of hints: the queue in the settings, or the events of the hosts; None if there is none.

    Args:
        cloud: The place.
        provider: Its provider, opened and without a budget.

    Raises:
        ConfigError: The queue cannot be opened with these settings.
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
    """Timeouts in seconds for libvirt hosts. They leave time for the other hosts' answers within the tick's own timeouts."""
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
