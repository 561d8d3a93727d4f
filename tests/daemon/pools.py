"""Helpers for tests of the warm pool: a bench whose cloud has a launch template, and summaries of what happened."""

from __future__ import annotations

from autoscaler.cloud.vms import LaunchData
from autoscaler.daemon.fleets import Fleet, FleetSetup
from tests.daemon.builders import EXACT, ORIGIN_S, Bench, policy

TOTAL = {"kind": "total"}
PROVISION = {"launch_template": "web", "maximum": 10}


def pool_policy(**changes):
    """A policy with a pool of at least two VMs, without a burst, that is filled after 60 s of calm."""
    own = {
        "signal": TOTAL,
        "provision": PROVISION,
        "refill": {"calm": "60s"},
        "warm_pool": {"minimum": 2, "spare": "0%"},
        "readiness": {"probe": "status_checks"},
    }
    for key, value in changes.items():
        both = isinstance(own.get(key), dict) and isinstance(value, dict)
        own[key] = {**own[key], **value} if both else value
    return policy(**own)


def pool_bench(demand, *, vms=0, running=0, faults=(), physics=EXACT, capacity=None, **changes):
    bench = Bench(vms=vms, running=running, zones="a", faults=faults, physics=physics, capacity=capacity)
    if "web" not in {template.name for template in bench.world.templates.all()}:
        data = LaunchData(image="ami-0000000a", vm_type="m7i.large")
        bench.world.templates.create(bench.world.new_id("lt"), "web", data, ORIGIN_S)
    renew_template(bench, "ami-0000000b")
    bench.add(pool_policy(**changes), demand)
    return bench


def fleet_in_two_subnets():
    """A fleet with two subnets, the first preferred, whose pool of four may be filled at once."""
    provision = {**PROVISION, "subnet": "subnet-a", "subnets": ["subnet-b"]}
    own = pool_policy(provision=provision, warm_pool={"minimum": 4}, refill={"at_once": 4})
    return Fleet(FleetSetup(own, None, None, None))


def renew_template(bench, image="ami-0000000c"):
    """Add a version to the template and make it the default."""
    book = bench.world.templates
    template = book.find("", "web")
    version = book.add_version(template, LaunchData(image=image, vm_type="m7i.large"), ORIGIN_S)
    template.default = version.number


def chores(bench, *verbs):
    """Recorded actions as (seconds since the origin, verb, VMs, reason); of all verbs if none is given."""
    return [
        (round(a.at_s - ORIGIN_S), str(a.intent.verb), a.intent.count, a.intent.reason)
        for a in bench.actions()
        if not verbs or a.intent.verb in verbs
    ]


def states(bench):
    """Number of the world's VMs by state, without those that are being or have been terminated."""
    found: dict[str, int] = {}
    for vm in bench.world.page(bench.clock.now()).vms:
        if vm.state not in ("terminated", "shutting-down"):
            found[str(vm.state)] = found.get(str(vm.state), 0) + 1
    return found
