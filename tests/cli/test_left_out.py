"""Fleets whose adapters cannot be made are left out with a message, and the others run."""

import pytest

from autoscaler.cli.run import sources_of
from autoscaler.clock import VirtualClock
from autoscaler.config.loading import PolicySet
from autoscaler.errors import ConfigError
from autoscaler.wiring_balancers import real_balancer, real_hook
from tests.daemon.builders import policy

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef"
GOOD = policy("good")
GROUP = policy("group", balancer={"target_group": {"arn": ARN}})
TRIED = policy("tried", freshness={"exercise": {"every": "1d", "ssm": {"document": "AWS-RunPatchBaseline"}}})
"""What only AWS has."""


def found(*policies):
    clock = VirtualClock(0.0)
    others = real_balancer(clock, lambda _: None), real_hook(clock, lambda _: None)
    return sources_of(PolicySet(policies=policies), lambda each: f"source of {each.fleet}", others)


def test_what_only_aws_has_leaves_its_own_fleet_out_where_vms_are_elsewhere():
    made, left_out = found(GROUP, GOOD, TRIED)
    assert made == {"good": "source of good"}
    first, second = left_out
    assert first.startswith("fleet group is left out: fleet group: balancer.target_group is AWS's")
    assert second.startswith("fleet tried is left out: fleet tried: freshness.exercise.ssm is AWS's")


def test_where_no_fleet_is_left_the_daemon_does_not_run(capsys):
    with pytest.raises(ConfigError, match="no fleet is left to run"):
        found(GROUP)
    assert "balancer.target_group is AWS's" in capsys.readouterr().err
