"""From policies and settings to adapters: which readiness probe and provider a fleet gets (sources: `wiring_sources`).

Why in one place: the daemon knows only ports, and the live daemon, the demo and virtual runs must wire the same policy to the same things.
A fleet without `act` gets a provider that cannot change anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.config.policy import Policy
from autoscaler.daemon.closing import Closable
from autoscaler.daemon.fleets import FleetSetup
from autoscaler.errors import ConfigError
from autoscaler.ports import Clock, MetricSource, Provider, ReadinessProbe, name_of
from autoscaler.providers.coalescing import SharedProvider, SharedReader
from autoscaler.providers.readiness import StatusCheckProbe
from autoscaler.providers.shadow import ShadowProvider
from autoscaler.wiring_balancers import (
    ArrivalsMaker,
    BalancerMaker,
    HookMaker,
    simulated_balancer,
)
from autoscaler.wiring_providers import provider_of


@dataclass(frozen=True, slots=True)
class Wired:
    """The fleets of a daemon with their adapters. The providers belong to the caller that opened them.

    Attributes:
        setups: All fleets.
        closables: Adapters that must be closed after use.
        fresh: Those of the closables that are new.
        retired: Adapters of the previous fleets that are no longer used and must be closed.
    """

    setups: tuple[FleetSetup, ...]
    closables: tuple[Closable, ...]
    fresh: tuple[Closable, ...] = ()
    retired: tuple[Closable, ...] = ()


class Wiring:
    """Wires policies to adapters, and again when policies change. Adapters that need not change are kept.

    Args:
        provider: The provider of all fleets, whatever their policies name; or several by the names that policies use. Fleets
            of the same provider share one listing per tick.
        clock: Clock for the adapters.
        source_of: Makes a fleet's source; see `wiring_sources.source_for`.
        balancer_of: Makes a fleet's balancer; see `wiring_balancers`. None for simulated ones.
        hook_of: Makes the hook that exercises VMs; see `wiring_balancers`. None for no hooks.
        arrivals_of: Makes what runs for VMs after each start; see `wiring_balancers`. None for nothing.
    """

    def __init__(
        self,
        provider: Provider | Mapping[str, Provider],
        clock: Clock,
        source_of: Callable[[Policy], MetricSource],
        balancer_of: BalancerMaker | None = None,
        hook_of: HookMaker | None = None,
        arrivals_of: ArrivalsMaker | None = None,
    ) -> None:
        several = isinstance(provider, Mapping)
        by_name = provider if isinstance(provider, Mapping) else {"": provider}
        self._readers = {name: SharedReader(each, name=name) for name, each in by_name.items()}
        self._acting = {name: SharedProvider(each, self._readers[name]) for name, each in by_name.items()}
        self._names = self._readers.keys() if several else None
        self._clock = clock
        self._source_of = source_of
        self._balancer_of = balancer_of or simulated_balancer(clock)
        self._hook_of = hook_of or (lambda _: None)
        self._arrivals_of = arrivals_of or (lambda _: None)

    def wire(self, policies: Sequence[Policy], before: Sequence[FleetSetup] = ()) -> Wired:
        """Give every fleet its adapters.

        Args:
            policies: One policy per fleet.
            before: The fleets that this object has wired so far.

        Raises:
            AutoscalerError: A source cannot be made, or a fleet would move to another provider. Nothing has been opened then.
        """
        was = {setup.policy.fleet: setup for setup in before}
        setups = tuple(self._setup(policy, was.get(policy.fleet)) for policy in policies)
        old, new = _closables(before), _closables(setups)
        return Wired(
            setups,
            new,
            fresh=tuple(adapter for adapter in new if adapter not in old),
            retired=tuple(adapter for adapter in old if adapter not in new),
        )

    def _setup(self, policy: Policy, was: FleetSetup | None) -> FleetSetup:
        provider = self._provider_for(policy, was)
        source = was.source if was and _same_source(was.policy, policy) else self._source_of(policy)
        same_probe = was is not None and was.provider is provider and was.policy.readiness == policy.readiness
        probe = was.probe if was and same_probe else probe_for(policy, provider, self._clock)
        same_balancer = was is not None and (was.policy.act, was.policy.balancer) == (
            policy.act,
            policy.balancer,
        )
        balancer = was.balancer if was and same_balancer else self._balancer_of(policy)
        same_hook = was is not None and was.policy.act == policy.act and _hooks(was.policy) == _hooks(policy)
        hook = was.hook if was and same_hook else self._hook_of(policy)
        same_arrivals = (
            was is not None
            and was.policy.act == policy.act
            and was.policy.readiness.after_start == policy.readiness.after_start
        )
        arrivals = was.arrivals if was and same_arrivals else self._arrivals_of(policy)
        return FleetSetup(policy, provider, source, probe, balancer, hook, arrivals)

    def _provider_for(self, policy: Policy, was: FleetSetup | None) -> Provider:
        name = "" if self._names is None else provider_of(policy, self._names)
        if was is not None and name_of(was.provider) != name:
            raise ConfigError(
                f"fleet {policy.fleet}: `provider` was {name_of(was.provider)} and is {name}, which has different VMs; restart the daemon to move the fleet"
            )
        if policy.act:
            return self._acting[name]
        start_time_s, stop_time_s = policy.vm.start_time_s, policy.vm.stop_time_s
        if was is not None and not was.policy.act:
            before = was.policy.vm
            if (before.start_time_s, before.stop_time_s) == (start_time_s, stop_time_s):
                return was.provider
            if isinstance(was.provider, ShadowProvider):
                return was.provider.at_pace(start_time_s=start_time_s, stop_time_s=stop_time_s)
        reader = self._readers[name]
        return ShadowProvider(
            reader, self._clock, policy.fleet, start_time_s=start_time_s, stop_time_s=stop_time_s
        )


def wire(
    policies: Sequence[Policy],
    provider: Provider,
    clock: Clock,
    source_of: Callable[[Policy], MetricSource],
) -> Wired:
    """Give every fleet its adapters, once. For the arguments, see `Wiring` and `Wiring.wire`."""
    return Wiring(provider, clock, source_of).wire(policies)


def _closables(setups: Sequence[FleetSetup]) -> tuple[Closable, ...]:
    adapters = (
        adapter
        for setup in setups
        for adapter in (setup.source, setup.probe, setup.balancer, setup.hook, setup.arrivals)
    )
    return tuple(adapter for adapter in adapters if isinstance(adapter, Closable))


def _hooks(policy: Policy) -> tuple[object, ...]:
    tried = policy.freshness.exercise
    return () if tried is None else (tried.command, tried.ssm)


def _same_source(before: Policy, after: Policy) -> bool:
    """Whether the source can be kept. A played recording depends on the VM's capacity, too."""
    was, now = before.vm, after.vm
    same = was.capacity_per_s == now.capacity_per_s and was.learn_capacity == now.learn_capacity
    return same and before.signal == after.signal


def simulated(policy: Policy) -> Policy:
    """Adapt a policy to the embedded cloud.

    It acts there. Status checks replace an HTTP probe, because nothing listens on a simulated VM; for the same reason its CPU
    use is not read. New VMs come from the launch template that the cloud names after the fleet.
    """
    changes: dict[str, object] = {"act": True, "provider": None}
    if policy.vm.learn_capacity is not None:
        changes["vm"] = policy.vm.model_copy(update={"learn_capacity": None})
    if policy.readiness.probe == "http":
        changes["readiness"] = policy.readiness.model_copy(update={"probe": "status_checks", "url": None})
    if policy.provision is not None:
        template = {"launch_template": policy.fleet, "version": "$Default", "subnet": None, "subnets": ()}
        changes["provision"] = policy.provision.model_copy(update=template)
    return policy.model_copy(update=changes)


def probe_for(policy: Policy, provider: Provider, clock: Clock) -> ReadinessProbe:
    """Make the readiness probe that a policy names."""
    from autoscaler.sources.probes import HttpProbe, RunningProbe

    readiness = policy.readiness
    if readiness.probe == "status_checks" or not policy.act:
        # In shadow no new VM really answers, so the simulated provider says what would be ready.
        return StatusCheckProbe(provider)
    if readiness.probe == "http":
        from autoscaler.sources.fan_out import Limits

        if readiness.url is None:
            msg = f"fleet {policy.fleet}: readiness.probe http needs readiness.url"
            raise ConfigError(msg)
        return HttpProbe(
            readiness.url, Limits(timeout_s=readiness.timeout_s, deadline_s=2.0 * readiness.timeout_s)
        )
    return RunningProbe(readiness.after_s, clock)
