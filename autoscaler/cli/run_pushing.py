"""What `run` needs for pushed samples, if the settings name a token file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoscaler.daemon.loop import Daemon
    from autoscaler.ports import Clock
    from autoscaler.settings import Settings
    from autoscaler.sources.push import PushedSamples
    from autoscaler.web.ingest import Ingest
    from autoscaler.web.ingest_token import PushTokens


@dataclass(frozen=True, slots=True)
class Pushing:
    """Pushed samples and the tokens that may push them.

    Attributes:
        settings: Limits of pushing.
        samples: The samples received; None if pushing is off.
        tokens: The tokens that are accepted; None if pushing is off.
    """

    settings: Settings
    samples: PushedSamples | None = None
    tokens: PushTokens | None = None

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Pushing:
        """Return the push configuration of the settings; pushing is off without a token file.

        Raises:
            ConfigError: The token file cannot be used.
        """
        from autoscaler.sources.push import PushedSamples, PushLimits
        from autoscaler.web.ingest_token import PushTokens

        if settings.push_token_file is None:
            return cls(settings)
        most = settings.push_max_vms
        samples = PushedSamples(clock, PushLimits(max(most // 10, 1), most))
        return cls(settings, samples, PushTokens(settings.push_token_file, clock.now))

    def ingest(self, daemon: Daemon) -> Ingest | None:
        """Return the HTTP endpoint that receives samples, or None if pushing is off."""
        from autoscaler.sources.remote_write import RemoteWrite
        from autoscaler.web.ingest import Ingest, IngestLimits

        if self.samples is None or self.tokens is None:
            return None
        limits = IngestLimits(self.settings.push_max_body_kb * 1024, self.settings.push_samples_per_s)
        return Ingest(daemon, self.samples, self.tokens, RemoteWrite(), limits)
