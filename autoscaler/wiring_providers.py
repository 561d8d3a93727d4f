"""From settings to the provider of this daemon: AWS, or hosts with libvirt; one daemon has one.

Why beside `wiring`: what a daemon, a diagnosis and a recording are opened on must be the same, and what nobody uses is not
imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.errors import ConfigError
from autoscaler.ports import Clock, Provider
from autoscaler.ports.hints import HintSource
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.libvirt.settings import LibvirtSettings
from autoscaler.settings import Settings

if TYPE_CHECKING:
    from autoscaler.sources.cloudwatch_client import CloudWatchSettings


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where the VMs are; one of the two.

    Attributes:
        ec2: How EC2 is reached; None where the VMs are elsewhere.
        libvirt: Hosts with libvirt; None likewise.
    """

    ec2: Ec2Settings | None = None
    libvirt: LibvirtSettings | None = None


def cloud_of(settings: Settings) -> Cloud:
    """Where the settings say that the VMs are.

    Raises:
        ConfigError: They name both, or neither.
    """
    given = [name for name in Settings.model_fields if name.startswith("aws_") and getattr(settings, name)]
    if not settings.libvirt_uris:
        if not settings.aws_region:
            raise ConfigError(
                "no AWS Region is set; name it with --region, AUTOSCALER_AWS_REGION or aws_region in autoscaler.toml, "
                "or name hosts with libvirt by libvirt_uris"
            )
        return Cloud(ec2=_ec2(settings))
    if given:
        raise ConfigError(
            f"libvirt_uris and {', '.join(given)} are set, and one daemon has one provider: leave out one of the two, or "
            "run two daemons with a state_dir each"
        )
    return Cloud(
        libvirt=LibvirtSettings(settings.libvirt_uris, settings.libvirt_heed_memory, **_waits(settings))
    )


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


async def open_budgeted(cloud: Cloud, clock: Clock) -> Provider:
    """The provider within its budget of API calls, where it has one: hosts of one's own count no calls."""
    provider = await open_provider(cloud, clock)
    if cloud.ec2 is None:
        return provider
    from autoscaler.providers.budget import CallBudget
    from autoscaler.providers.budgeted import BudgetedProvider

    return BudgetedProvider(provider, CallBudget(clock), clock)


async def open_hints(settings: Settings, cloud: Cloud, provider: Provider) -> HintSource | None:
    """The cloud's own news: of a queue that the settings name, or of the hosts; None where there is none.

    Raises:
        ConfigError: The queue cannot be opened as the settings say.
    """
    if cloud.libvirt is not None:
        from autoscaler.providers.libvirt.provider import LibvirtProvider

        return provider.hints if isinstance(provider, LibvirtProvider) else None
    if not settings.aws_hint_queue_url or cloud.ec2 is None:
        return None
    from autoscaler.providers.ec2.hints import HintQueue

    return await HintQueue.open(cloud.ec2, settings.aws_hint_queue_url)


def cloudwatch_settings(settings: Settings) -> CloudWatchSettings:
    """How CloudWatch is reached: as EC2 is."""
    from autoscaler.sources.cloudwatch_client import CloudWatchSettings

    secret = settings.aws_secret_access_key
    return CloudWatchSettings(
        region=settings.aws_region,
        endpoint_url=settings.aws_cloudwatch_endpoint_url,
        profile=settings.aws_profile,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
    )


def _waits(settings: Settings) -> dict[str, float]:
    """A host is waited for so long that the others' answers still come within the tick's own patience, in seconds."""
    return {
        "listing_s": 0.8 * min(settings.observe_timeout_s, 0.6 * settings.tick_s),
        "batch_s": 0.4 * settings.act_timeout_s,
        "call_s": 0.5 * settings.act_timeout_s,
    }


def _ec2(settings: Settings) -> Ec2Settings:
    secret = settings.aws_secret_access_key
    return Ec2Settings(
        region=settings.aws_region,
        endpoint_url=settings.aws_endpoint_url,
        profile=settings.aws_profile,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
    )
