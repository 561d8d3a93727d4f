"""`run`: the daemon itself, with this machine's settings and policies.

Exit codes: 0 stopped by a signal or after --for, 1 could not start, 2 wrong usage.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from autoscaler.cli.options import ENDPOINT_URL, POLICIES, REGION, STATE_DIR
from autoscaler.cli.output import FAILED, errors_in_words, seconds, set_up_logging

if TYPE_CHECKING:
    from autoscaler.config.loading import PolicySet
    from autoscaler.config.policy import Policy
    from autoscaler.daemon.last_good import LastGood
    from autoscaler.daemon.loop import Daemon
    from autoscaler.daemon.policies import Loaded, PolicyFolder
    from autoscaler.daemon.telemetry import Telemetry
    from autoscaler.daemon.vms.leasing import Leasing
    from autoscaler.ports import Clock, MetricSource
    from autoscaler.settings import Settings
    from autoscaler.sources.push import PushedSamples
    from autoscaler.store import SqliteJournal
    from autoscaler.web.ingest import Ingest
    from autoscaler.web.ingest_token import PushTokens
    from autoscaler.web.site import Site


def run(
    policies: POLICIES = None,
    state_dir: STATE_DIR = None,
    http_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of /metrics and /healthz (setting http_port).")
    ] = None,
    endpoint_url: ENDPOINT_URL = None,
    region: REGION = None,
    for_s: Annotated[
        float | None,
        typer.Option(
            "--for", parser=seconds, help="Stop after this long, for example 40s.", metavar="DURATION"
        ),
    ] = None,
    log_format: Annotated[
        Literal["console", "json"] | None, typer.Option(help="Format of log lines (setting log_format).")
    ] = None,
) -> None:
    """Run the daemon until it is told to stop; VMs in service then stay as they are.

    It acts only on fleets whose policy says `act: true`; all others run in shadow.
    """
    from autoscaler.clock import SystemClock
    from autoscaler.daemon import event_loop
    from autoscaler.daemon.last_good import FILE_NAME, LastGood
    from autoscaler.daemon.policies import PolicyFolder
    from autoscaler.settings import load_settings

    with errors_in_words("run"):
        settings = load_settings(
            policies=policies,
            state_dir=state_dir,
            http_port=http_port,
            aws_endpoint_url=endpoint_url,
            aws_region=region,
            log_format=log_format,
        )
        set_up_logging(settings.log_format, settings.log_level)
        folder = PolicyFolder(settings.policies, settings.tick_s, SystemClock())
        loaded = folder.before_loading()
        last_good = LastGood(settings.state_dir / FILE_NAME)
        policies_read, mended = _load(folder, last_good)
        loaded = replace(
            loaded,
            left_out=tuple(map(str, policies_read.errors)),
            mended=mended,
            warnings=tuple(map(str, policies_read.warnings)),
        )
        event_loop.run(_run(settings, folder, policies_read, loaded, last_good, for_s))


def _load(folder: PolicyFolder, last_good: LastGood) -> tuple[PolicySet, tuple[str, ...]]:
    """Return the usable policies, and a message for each file that is used in its last good version.

    Errors in other files are logged and do not keep the usable policies from running.

    Raises:
        Exit: No policy is usable; the errors are on standard error.
    """
    loaded, mended = last_good.mend(folder, folder.load())
    if not loaded.policies:
        for problem in loaded.errors:
            typer.echo(str(problem), err=True)
        typer.echo(f"run: no usable policy in {folder.path}; see `autoscaler validate`", err=True)
        raise typer.Exit(FAILED)
    return loaded, mended


async def _run(
    settings: Settings,
    folder: PolicyFolder,
    policies: PolicySet,
    loaded: Loaded,
    last_good: LastGood,
    for_s: float | None,
) -> None:
    from autoscaler.cli.run_places import OpenPlaces
    from autoscaler.clock import SystemClock
    from autoscaler.daemon.backfill import Backfill
    from autoscaler.daemon.lifecycle import Retention, close_all, run_to_the_end, signal_handling
    from autoscaler.daemon.loop import Daemon, LoopSettings
    from autoscaler.daemon.notify import Notifier
    from autoscaler.daemon.reloading import Reloads
    from autoscaler.daemon.telemetry import Telemetry
    from autoscaler.settings import unknown_variables
    from autoscaler.store.recorded_demand import RecordedPast
    from autoscaler.web.control import Control
    from autoscaler.wiring import Wiring
    from autoscaler.wiring_balancers import real_arrivals, real_balancer, real_hook
    from autoscaler.wiring_providers import clouds_of
    from autoscaler.wiring_sources import Sources

    clouds = clouds_of(settings)
    clock, telemetry = SystemClock(), Telemetry()
    for text in unknown_variables(os.environ):
        telemetry.log.warning("setting_unknown", text=text)
    pushing = Pushing.of(settings, clock)
    sources = Sources(
        clock,
        folder.path,
        pushing.samples,
        clouds.cloudwatch_of,
        telemetry.cloudwatch_called,
        tick_s=settings.tick_s,
    )
    balancer_of, hook_of = real_balancer(clock, clouds.ec2_of), real_hook(clock, clouds.ec2_of)
    made, left_out = sources_of(policies, sources.source_for, (clouds.name_of, balancer_of, hook_of))
    async with AsyncExitStack() as stack:
        journal, name = _journal(settings, clock, telemetry, stack)
        places = OpenPlaces(clouds, clock, telemetry, stack)
        providers = await places.open()

        def source_of(policy: Policy) -> MetricSource:
            return made.pop(policy.fleet, None) or sources.source_for(policy)

        wiring = Wiring(providers, clock, source_of, balancer_of, hook_of, real_arrivals(clock))
        wired = wiring.wire([policy for policy in policies.policies if policy.fleet in made])
        limits = LoopSettings(settings.tick_s, settings.observe_timeout_s, settings.act_timeout_s)
        daemon = Daemon(
            clock,
            wired.setups,
            journal,
            telemetry,
            limits,
            notifier=Notifier.from_environment(os.environ),
            leasing=_leasing(name, clock, stack),
        )
        stack.push_async_callback(close_all, daemon)
        loaded = replace(loaded, left_out=loaded.left_out + left_out)
        reloads = Reloads(daemon, folder, wiring.wire, loaded, last_good=last_good)
        stack.enter_context(signal_handling(daemon, reloads))
        site = await stack.enter_async_context(_site(settings, daemon, pushing, stack))
        telemetry.log.info("listening", text=f"{site.url} ({' '.join(site.paths)})")
        # Load the operations in force before the control socket can accept changes.
        await daemon.operators.load()
        control = Control(daemon, settings.control_path, settings.control_group)
        await stack.enter_async_context(control)
        telemetry.log.info("listening", text=f"{control.path} (pause, resume, override)")
        retention = Retention(settings.retention_days * 86_400.0, int(settings.retention_mb * 1e6))
        beside: dict[str, Callable[[], Awaitable[object]]] = {"site": site.watch, "control": control.watch}
        beside["history"] = Backfill(daemon, RecordedPast(settings.state_dir)).run
        beside |= await places.beside(daemon)
        await run_to_the_end(daemon, retention=retention, reloads=reloads, beside=beside, for_s=for_s)


def _journal(
    settings: Settings, clock: Clock, telemetry: Telemetry, stack: AsyncExitStack
) -> tuple[SqliteJournal, str]:
    """Return the journal, and the daemon's name, empty if the settings turn leases off; the journal ends with the stack."""
    from autoscaler.daemon.closing import close
    from autoscaler.store import open_journal, schema
    from autoscaler.store.identity import daemon_name, keep_name

    name = ""

    def begun_anew(text: str) -> None:
        telemetry.log.error("journal_recovered", text=text)
        # If the whole directory was lost, so was the name.
        keep_name(settings.state_dir, name)

    before = schema.version_of(settings.state_dir)
    journal = open_journal(settings.state_dir, clock.now, begun_anew)
    if 0 < before < (after := schema.version_of(settings.state_dir)):
        text = f"from version {before} to {after}; the program that wrote version {before} refuses it from now on"
        telemetry.log.info("journal_migrated", text=text)
    stack.push_async_callback(close, journal, telemetry)
    name = daemon_name(settings.state_dir) if settings.lease else ""
    return journal, name


def _site(settings: Settings, daemon: Daemon, pushing: Pushing, stack: AsyncExitStack) -> Site:
    """Return the HTTP site; its reader of the journal is closed with the stack."""
    from autoscaler.store.history import JournalHistory
    from autoscaler.web.site import Site

    history = JournalHistory(settings.state_dir)
    stack.callback(history.close)
    return Site(daemon, settings.http_host, settings.http_port, pushing.ingest(daemon), history=history)


def _leasing(name: str, clock: Clock, stack: AsyncExitStack) -> Leasing | None:
    """Return the lease that keeps two daemons off one fleet, or None without a name; it ends with the stack."""
    from autoscaler.daemon.vms.leasing import Leasing
    from autoscaler.store.identity import run_name

    if not name:
        return None
    leasing = Leasing(clock, name, run_name())
    stack.push_async_callback(leasing.finish)
    return leasing


def sources_of(
    policies: PolicySet,
    source_of: Callable[[Policy], MetricSource],
    others_of: Sequence[Callable[[Policy], object]],
) -> tuple[dict[str, MetricSource], tuple[str, ...]]:
    """Return a metric source per fleet, and a message for each fleet that is left out.

    A fleet is left out if its source or another of its adapters cannot be made. The other fleets run.

    Raises:
        ConfigError: No fleet is left.
    """
    from autoscaler.errors import AutoscalerError, ConfigError

    made: dict[str, MetricSource] = {}
    left_out = []
    for policy in policies.policies:
        try:
            for adapter_of in others_of:
                adapter_of(policy)
            made[policy.fleet] = source_of(policy)
        except AutoscalerError as error:
            left_out.append(f"fleet {policy.fleet} is left out: {error}")
    if not made:
        for text in left_out:
            typer.echo(f"run: {text}", err=True)
        raise ConfigError("no fleet is left to run")
    return made, tuple(left_out)


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
