"""Builds the balancer and the exercise hook that a policy names, or a simulated balancer for runs that touch nothing.

Why apart from `wiring`: each kind has its own settings to translate for an adapter, and unused kinds are not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.config.policy import Policy
from autoscaler.daemon.acts.arrival_command import Arrivals
from autoscaler.errors import ConfigError
from autoscaler.ports import Balancer, Clock
from autoscaler.ports.hooks import VmHook
from autoscaler.providers.ec2.settings import Ec2Settings

BalancerMaker: TypeAlias = Callable[[Policy], Balancer | None]
Ec2Of: TypeAlias = Callable[[Policy], Ec2Settings | None]
"""Returns the AWS settings for a policy; None if its VMs are elsewhere. Raises ConfigError if it names an unknown provider."""
HookMaker: TypeAlias = Callable[[Policy], VmHook | None]
ArrivalsMaker: TypeAlias = Callable[[Policy], Arrivals | None]


def simulated_balancer(clock: Clock) -> BalancerMaker:
    """Return a maker of simulated balancers, for the embedded cloud and for shadows. They carry out each order at once."""

    def made(policy: Policy) -> Balancer | None:
        return None if policy.balancer is None else SimulatedBalancer(clock)

    return made


def real_balancer(clock: Clock, ec2_of: Ec2Of) -> BalancerMaker:
    """Return a maker of the balancers that policies name; simulated ones for fleets that do not act.

    Args:
        clock: Clock for the times of readings.
        ec2_of: Returns the AWS settings for a policy.
    """

    def made(policy: Policy) -> Balancer | None:
        section = policy.balancer
        if section is None:
            return None
        if not policy.act:
            return SimulatedBalancer(clock)
        if section.haproxy is not None:
            from autoscaler.balancers.haproxy import HaproxyBalancer

            found = section.haproxy
            return HaproxyBalancer(found.sockets, found.backend, found.join, clock, timeout_s=found.timeout_s)
        if section.command is not None:
            from autoscaler.balancers.command import CommandBalancer

            return CommandBalancer(section.command.run, clock, timeout_s=section.command.timeout_s)
        if section.target_group is not None:
            ec2 = ec2_of(policy)
            if ec2 is None:
                raise ConfigError(
                    f"fleet {policy.fleet}: balancer.target_group is AWS's, and the VMs are not there (libvirt_uris); "
                    "use balancer.haproxy or balancer.command"
                )
            from autoscaler.providers.ec2.elb import TargetGroupBalancer

            group = section.target_group
            return TargetGroupBalancer(ec2, group.arn, clock, port=group.port, timeout_s=group.timeout_s)
        raise ConfigError(
            f"fleet {policy.fleet}: `balancer` names no load balancer; write one of haproxy, target_group and command"
        )

    return made


def real_hook(clock: Clock, ec2_of: Ec2Of) -> HookMaker:
    """Return a maker of the hooks that exercise VMs; None for fleets that do not act.

    Args:
        clock: Clock that paces polling.
        ec2_of: Returns the AWS settings for a policy.
    """

    def made(policy: Policy) -> VmHook | None:
        tried = policy.freshness.exercise
        if tried is None or not policy.act:
            return None
        if tried.command is not None:
            from autoscaler.balancers.hooks import CommandHook

            return CommandHook(tried.command.run, timeout_s=tried.command.timeout_s)
        if tried.ssm is not None:
            ec2 = ec2_of(policy)
            if ec2 is None:
                raise ConfigError(
                    f"fleet {policy.fleet}: freshness.exercise.ssm is AWS's, and the VMs are not there (libvirt_uris); "
                    "use freshness.exercise.command"
                )
            from autoscaler.providers.ec2.ssm import SsmHook

            parameters = {each.name: each.values for each in tried.ssm.parameters}
            return SsmHook(ec2, tried.ssm.document, parameters, clock, timeout_s=tried.ssm.timeout_s)
        return None

    return made


def real_arrivals(clock: Clock) -> ArrivalsMaker:
    """Return a maker of what runs for VMs after each start; None for fleets that do not act."""

    def made(policy: Policy) -> Arrivals | None:
        section = policy.readiness.after_start
        if section is None or not policy.act:
            return None
        from autoscaler.balancers.hooks import CommandHook

        return Arrivals(CommandHook(section.run, timeout_s=section.timeout_s, action="start"), clock)

    return made
