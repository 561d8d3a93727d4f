"""`doctor`: checks whether this machine, this account and every policy are ready for a bad day. Changes nothing.

Exit codes: 0 no problem found (there may be warnings), 1 at least one problem, 2 wrong usage.

Rules of this file: it asks the questions and shows the answers. `providers.ec2.diagnosis` and
`providers.libvirt.examining` interpret the answers.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.cli.options import ENDPOINT_URL, JSON, POLICIES, REGION, STATE_DIR
from autoscaler.cli.output import FAILED, errors_in_words
from autoscaler.words import counted, printable, some

if TYPE_CHECKING:
    from autoscaler.config.policy import Policy
    from autoscaler.ports import Clock, MetricSource, ProvisionSpec, Vm
    from autoscaler.ports.findings import Finding
    from autoscaler.providers.ec2.settings import Ec2Settings
    from autoscaler.providers.libvirt.settings import LibvirtSettings
    from autoscaler.settings import Settings
    from autoscaler.sources.cloudwatch_client import CloudWatchSettings
    from autoscaler.wiring_providers import Cloud

_READ_TIMEOUT_S = 10.0
_BETWEEN_READS_S = 2.0
_STATUS_TIMEOUT_S = 10.0
_LITTLE_SPACE, _NO_SPACE = 1 << 30, 16 << 20
"""Free bytes for the journal below which doctor warns, and below which it reports a problem."""
_NO_NAMELESS_FILES = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
"""What a file system answers that cannot make files without a name."""


def doctor(
    policies: POLICIES = None,
    state_dir: STATE_DIR = None,
    endpoint_url: ENDPOINT_URL = None,
    region: REGION = None,
    all_: Annotated[bool, typer.Option("--all", help="Also show what is fine.")] = False,
    as_json: JSON = False,
) -> None:
    """Check settings, policies, metrics, permissions, quotas and VMs, and say how to fix what is wrong.

    Run it as the daemon's user on the daemon's machine, because both affect what can be reached. It changes nothing:
    permissions for changes are checked with DryRun.
    """
    import asyncio

    from autoscaler.settings import load_settings

    with errors_in_words("doctor"):
        settings = load_settings(
            policies=policies, state_dir=state_dir, aws_endpoint_url=endpoint_url, aws_region=region
        )
        findings = asyncio.run(_examine(settings))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        print_findings(findings, everything=all_)
    if any(each.level == "problem" for each in findings):
        raise typer.Exit(FAILED)


async def _examine(settings: Settings) -> list[Finding]:
    from autoscaler.clock import SystemClock
    from autoscaler.daemon.policies import PolicyFolder
    from autoscaler.errors import ConfigError
    from autoscaler.ports.findings import Finding, Level
    from autoscaler.settings import unknown_variables
    from autoscaler.wiring_providers import clouds_of

    clock = SystemClock()
    found = [
        Finding("settings", Level.WARNING, text, "correct the name") for text in unknown_variables(os.environ)
    ]
    found += _state_dir(settings.state_dir)
    found += _running(settings) + full_journal(settings, clock.now())
    loaded = PolicyFolder(settings.policies, settings.tick_s, clock).load()
    found += [Finding("policy", Level.PROBLEM, str(each), "correct the file") for each in loaded.errors]
    found += [Finding("policy", Level.WARNING, str(each), "look at the file") for each in loaded.warnings]
    if not loaded.policies:
        text = f"no usable policy in {settings.policies}"
        return [*found, Finding("policy", Level.PROBLEM, text, "see `autoscaler validate`")]
    acting = sum(policy.act for policy in loaded.policies)
    text = f"{counted(len(loaded.policies), 'fleet')}, {acting} of them acting"
    found.append(Finding("policy", Level.OK, text))
    try:
        clouds = clouds_of(settings)
    except ConfigError as error:
        return [*found, Finding("settings", Level.PROBLEM, str(error), "set it")]
    folder = PolicyFolder(settings.policies, settings.tick_s, clock).path
    placed: dict[str, list[Policy]] = {name: [] for name in clouds.by_name}
    for policy in loaded.policies:
        try:
            placed[clouds.name_of(policy)].append(policy)
        except ConfigError as error:
            fix = "correct `provider` in the policy, or the settings"
            found.append(Finding("policy", Level.PROBLEM, str(error), fix, policy.fleet))
    elsewhere = {policy.fleet: name for name, its in placed.items() for policy in its}
    listed: dict[str, Sequence[Vm]] = {}
    for name, its in placed.items():
        asked, vms = await _place(clouds.by_name[name], its, clock, folder)
        # VMs of a fleet that belongs to another place do have a policy. `_strays` reports them with the place it names.
        known = [f"autoscaler:fleet={fleet}," for fleet in elsewhere]
        asked = [
            each for each in asked if each.check != "strays" or not any(tag in each.text for tag in known)
        ]
        found += [_with_place(name, each) for each in asked]
        listed[name] = vms
    twins = _twins(clouds.by_name, listed)
    for name, vms in listed.items():
        found += [_with_place(name, each) for each in _strays(name, vms, elsewhere, twins.get(name, ()))]
    return found + [_one_account(name, others) for name, others in twins.items() if name < min(others)]


async def _place(
    cloud: Cloud, policies: Sequence[Policy], clock: Clock, folder: Path
) -> tuple[list[Finding], Sequence[Vm]]:
    """Return the findings about one place and its fleets, and the VMs listed there."""
    from autoscaler.errors import ConfigError
    from autoscaler.ports.findings import Finding, Level

    try:
        found, vms = await _asked(cloud, policies, clock)
    except ConfigError as error:
        fix = "give the machine a role" if cloud.libvirt is None else "install it"
        return [Finding("credentials", Level.PROBLEM, str(error), fix)], ()
    if any(each.check == "reach" and each.level is Level.PROBLEM for each in found) and not vms:
        return found, ()
    for policy in policies:
        found += _programs(policy)
        found += await _haproxy(policy, [vm for vm in vms if vm.fleet == policy.fleet])
    for policy in policies:
        its = [vm for vm in vms if vm.fleet == policy.fleet]
        found.append(await _metrics(policy, its, clock, folder, cloud.cloudwatch))
    return found, vms


def _twins(clouds: Mapping[str, Cloud], listed: Mapping[str, Sequence[Vm]]) -> dict[str, list[str]]:
    """Return, for each place, other places that show some of the same VMs in the same Region, as under a second profile or key."""
    found: dict[str, list[str]] = {}
    for one, other in permutations(listed, 2):
        its, others = clouds[one].ec2, clouds[other].ec2
        if its is None or others is None:
            continue
        if (its.region, its.endpoint_url) != (others.region, others.endpoint_url):
            continue
        if {vm.id for vm in listed[one]} & {vm.id for vm in listed[other]}:
            found.setdefault(one, []).append(other)
    return found


def _one_account(name: str, others: Sequence[str]) -> Finding:
    """Return the finding that several places are the same account and Region."""
    from autoscaler.ports.findings import Finding, Level

    text = f"{name} and {some(others)} show the same VMs, so they are one account and Region: each keeps an API budget as if it were alone, and together they exceed that of the account"
    return Finding("places", Level.WARNING, text, "make them one place, with one profile or role")


def _strays(
    name: str, vms: Sequence[Vm], elsewhere: Mapping[str, str], twins: Collection[str]
) -> list[Finding]:
    """Return a finding for each fleet that has VMs in this place although its policy names another place."""
    from autoscaler.ports.findings import Finding, Level

    places = (name, *twins)
    strays = Counter(vm.fleet for vm in vms if elsewhere.get(vm.fleet, name) not in places)
    fix = "correct the tags of the VMs, or `provider` in the policy"
    return [
        Finding(
            "strays",
            Level.WARNING,
            f"{name}: {counted(number, 'VM')} of the fleet, whose policy names {elsewhere[fleet]}: no fleet here manages them",
            fix,
            fleet,
        )
        for fleet, number in sorted(strays.items())
    ]


def _with_place(name: str, finding: Finding) -> Finding:
    """Return the finding with the name of the place it is about, if there are several places."""
    return replace(finding, text=f"{name}: {finding.text}") if name and not finding.fleet else finding


def _state_dir(directory: Path) -> list[Finding]:
    """Return findings on whether the state directory is there, can be written, and has enough free space."""
    from autoscaler.ports.findings import Finding, Level

    there = next((each for each in (directory, *directory.absolute().parents) if each.exists()), Path("/"))
    if why := _unwritable(there):
        text = f"the state directory {directory} cannot be written by this user ({why})"
        fix = "run as the daemon's user, or correct the owner of the directory, or the mount of its disk"
        return [Finding("state_dir", Level.PROBLEM, text, fix)]
    found = [room(directory, shutil.disk_usage(there).free)]
    if there != directory:
        text = f"the state directory {directory} is not there; a daemon makes it when it starts"
        fix = "if a daemon has run, look where its journal went: mount its disk, or correct `state_dir`"
        found.append(Finding("state_dir", Level.UNKNOWN, text, fix))
    return found


def _unwritable(directory: Path) -> str:
    """Return why no file can be made in the directory; empty if one can. The file that is tried never has a name."""
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError as error:
        if error.errno in _NO_NAMELESS_FILES:
            return "" if os.access(directory, os.W_OK) else "permission denied"
        return (error.strerror or str(error)).lower()
    return ""


def _running(settings: Settings) -> list[Finding]:
    """Return a finding if a daemon with these settings runs and cannot write its journal."""
    from autoscaler.cli.status import fetch, own_address
    from autoscaler.errors import DaemonError
    from autoscaler.ports.findings import Finding, Level

    if not settings.http_port:
        return []
    try:
        told = fetch(own_address(settings.http_host, settings.http_port), _STATUS_TIMEOUT_S)
    except DaemonError:
        return []  # none runs, or one of another version
    why = told.get("journal", {}).get("error")
    if not why:
        return []
    text = f"the running daemon starts and stops nothing, because it cannot write its journal: {why}"
    return [Finding("journal", Level.PROBLEM, text, "repair that; the daemon then continues by itself")]


def full_journal(settings: Settings, now_s: float) -> list[Finding]:
    """Return a finding if the journal's largest size keeps it from going back as far as the settings say."""
    from autoscaler.errors import JournalError
    from autoscaler.ports.findings import Finding, Level
    from autoscaler.store import JournalReader, schema

    try:
        size_mb = (settings.state_dir / schema.FILE_NAME).stat().st_size / 1e6
        with JournalReader(settings.state_dir) as reader:
            began_s = reader.begins_at_s()
    except (OSError, JournalError):
        return []  # there is none, or the daemon says what is wrong with it
    most_mb, most_days = settings.retention_mb, settings.retention_days
    days = most_days if began_s is None else (now_s - began_s) / 86_400.0
    if size_mb < 0.9 * most_mb or days >= 0.9 * most_days:
        return []
    text = f"the journal is full ({most_mb:g} MB) and goes back {days:.1f} days, not {most_days:g} (retention_days)"
    return [Finding("journal", Level.WARNING, text, "raise retention_mb, or lower retention_days")]


def room(directory: Path, free: int) -> Finding:
    """Return the finding for this number of free bytes in the journal's folder."""
    from autoscaler.ports.findings import Finding, Level

    size = f"{free / 1e9:.1f} GB" if free >= _LITTLE_SPACE else f"{free / 1e6:.0f} MB"
    text = f"{size} are free for the journal in {directory}"
    if free >= _LITTLE_SPACE:
        return Finding("state_dir", Level.OK, text)
    level = Level.PROBLEM if free < _NO_SPACE else Level.WARNING
    return Finding("state_dir", level, text, "free some space: the daemon does nothing that it cannot record")


async def _asked(
    cloud: Cloud, policies: Sequence[Policy], clock: Clock
) -> tuple[list[Finding], Sequence[Vm]]:
    """Return the findings of the provider's own checks, and the VMs that it lists."""
    from autoscaler.ports.findings import Level
    from autoscaler.wiring_providers import open_provider

    if cloud.libvirt is not None:
        return await _asked_hosts(cloud.libvirt, policies, clock)
    assert cloud.ec2 is not None
    found = await _asked_ec2(cloud.ec2, policies, clock)
    if any(each.check == "reach" and each.level is Level.PROBLEM for each in found):
        return found, ()
    provider = await open_provider(cloud, clock)
    try:
        return found, (await provider.list_vms()).vms
    finally:
        await provider.close()


async def _asked_hosts(
    settings: LibvirtSettings, policies: Sequence[Policy], clock: Clock
) -> tuple[list[Finding], Sequence[Vm]]:
    from autoscaler.providers.libvirt.examining import Examined, examine

    fleets = [
        Examined(
            fleet=policy.fleet,
            spec=_spec_of(policy),
            subnets=tuple(filter(None, (policy.provision.subnet, *policy.provision.subnets)))
            if policy.provision
            else (),
            hibernates=policy.warm_pool.hibernate is not None,
            only_on_aws=fields_only_on_aws(policy),
        )
        for policy in policies
    ]
    return await examine(settings, fleets, clock)


def fields_only_on_aws(policy: Policy) -> tuple[str, ...]:
    """Return the names of policy fields that work only on AWS."""
    balancer, tried = policy.balancer, policy.freshness.exercise
    asked = {
        "balancer.target_group": balancer is not None and balancer.target_group is not None,
        "freshness.exercise.ssm": tried is not None and tried.ssm is not None,
        "signal.source cloudwatch": str(policy.signal.source) == "cloudwatch",
    }
    return tuple(name for name, there in asked.items() if there)


def _spec_of(policy: Policy) -> ProvisionSpec | None:
    from autoscaler.ports import ProvisionSpec

    made = policy.provision
    if made is None:
        return None
    return ProvisionSpec(policy.fleet, made.launch_template, made.version, made.vm_type, made.subnet)


async def _asked_ec2(ec2: Ec2Settings, policies: Sequence[Policy], clock: Clock) -> list[Finding]:
    from autoscaler.providers.ec2.examining import Examined, examine

    fleets = [
        Examined(
            fleet=policy.fleet,
            spec=_spec_of(policy),
            may_provision=policy.max_provisioned if policy.provision else 0,
            reads_template=policy.reads_template,
            reads_cloudwatch=str(policy.signal.source) == "cloudwatch",
            hibernates=policy.warm_pool.hibernate is not None,
            retypes=bool(policy.vm.types),
            target_group=policy.balancer.target_group.arn
            if policy.balancer is not None and policy.balancer.target_group is not None
            else "",
            start_time_s=policy.vm.start_time_s,
            drain_timeout_s=policy.drain.timeout_s,
        )
        for policy in policies
    ]
    return await examine(ec2, fleets, clock)


async def _haproxy(policy: Policy, vms: Sequence[Vm]) -> list[Finding]:
    """Return findings on whether the fleet's HAProxy can be reached and knows the fleet's VMs."""
    section = policy.balancer.haproxy if policy.balancer is not None else None
    if section is None:
        return []
    from autoscaler.balancers.haproxy_check import examine_haproxy

    return await examine_haproxy(
        policy.fleet, section.sockets, section.backend, section.join, section.timeout_s, vms
    )


def _programs(policy: Policy) -> list[Finding]:
    """Return findings on whether the programs that the policy runs exist and may be executed by this user."""
    from autoscaler.ports.findings import Finding, Level

    tried = policy.freshness.exercise
    commands = {
        "balancer.command": policy.balancer.command if policy.balancer is not None else None,
        "freshness.exercise.command": tried.command if tried is not None else None,
        "readiness.after_start": policy.readiness.after_start,
    }
    found = []
    for where, command in commands.items():
        if command is None:
            continue
        if shutil.which(command.run[0]) is None:
            text = f"{where} names {command.run[0]}, which is not there or may not be run by this user"
            fix = "run as the daemon's user, give the program's whole path, and make it executable"
            found.append(Finding("program", Level.PROBLEM, text, fix, policy.fleet))
        else:
            text = f"{where}: {command.run[0]} can be run"
            found.append(Finding("program", Level.OK, text, "", policy.fleet))
    return found


async def _metrics(
    policy: Policy, vms: Sequence[Vm], clock: Clock, folder: Path, aws: CloudWatchSettings | None
) -> Finding:
    """Read the fleet's metrics and return a finding on whether they can be used."""
    from autoscaler.errors import AutoscalerError
    from autoscaler.ports import VmState
    from autoscaler.ports.findings import Finding, Level
    from autoscaler.wiring_sources import source_for

    if policy.signal.source == "push":
        text = "samples are pushed to a running daemon; its status shows what was accepted and refused"
        return Finding("metrics", Level.UNKNOWN, text, "see `autoscaler status`", policy.fleet)
    running = [vm for vm in vms if vm.state is VmState.RUNNING]
    name = f"{policy.signal.kind} from {policy.signal.source}"
    if not running and not policy.signal.of_the_fleet:
        text = f"{name} could not be tried, since none of its VMs runs"
        return Finding("metrics", Level.UNKNOWN, text, "try again while some run", policy.fleet)
    fix = "correct the policy's signal, or the service that answers there"
    try:
        source = source_for(policy, clock, folder, lambda _: aws)
    except AutoscalerError as error:
        return Finding("metrics", Level.PROBLEM, str(error), fix, policy.fleet)
    try:
        seen, why = await _read_twice(source, running, clock, policy.signal.max_age_s)
    finally:
        await source.close()
    wanted = 1 if policy.signal.of_the_fleet else len(running)
    text = f"{name}: {seen} of {wanted} readings came and count" + (f"; {why}" if why else "")
    if seen >= wanted and not why:
        return Finding("metrics", Level.OK, text, "", policy.fleet)
    if policy.signal.source == "trace" and not seen:
        # A recording starts with the daemon, and its first value may be known only after an interval.
        return Finding(
            "metrics", Level.UNKNOWN, text, "see `autoscaler status` once the daemon runs", policy.fleet
        )
    level = Level.PROBLEM if seen == 0 else Level.WARNING
    return Finding("metrics", level, text, fix, policy.fleet)


async def _read_twice(
    source: MetricSource, vms: Sequence[Vm], clock: Clock, max_age_s: float
) -> tuple[int, str]:
    """Return the number of usable readings and what was wrong with the others. It reads twice if needed, because a rate needs two."""
    import asyncio

    from autoscaler.daemon.doubted_readings import counting, doubts
    from autoscaler.errors import SourceError

    count, why = 0, ""
    for again in (False, True):
        if again:
            await clock.sleep_until(clock.monotonic() + _BETWEEN_READS_S)
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                read = await source.read(vms)
        except TimeoutError:
            count, why = 0, f"no answer within {_READ_TIMEOUT_S:g} s"
        except SourceError as failed:
            count, why = 0, str(failed)
        else:
            now_s = clock.now()
            count = counting(read, now_s, max_age_s)
            why = "; ".join(filter(None, (read.error, doubts(read, now_s, max_age_s))))
        if count and not why:
            break
    return count, why


def print_findings(findings: Sequence[Finding], *, everything: bool) -> None:
    """Print findings as a table, and how many there are of each level; those that are well only if `everything`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    counts = Counter(str(each.level) for each in findings)
    console = Console()
    shown = [each for each in findings if everything or each.level != "ok"]
    if shown:
        table = Table(box=None, pad_edge=False)
        for name in ("", "fleet", "what", "what to do"):
            table.add_column(name, overflow="fold")
        alike: dict[tuple[str, str, str], list[str]] = {}
        for each in sorted(shown, key=lambda each: _ORDER.index(str(each.level))):
            alike.setdefault((str(each.level), each.text, each.fix), []).append(each.fleet or "-")
        for (level, text, fix), fleets in alike.items():
            table.add_row(
                _MARKS[level], *(Text(printable(cell)) for cell in (some(fleets), text, fix or "-"))
            )
        console.print(table)
    told = ", ".join(f"{counts[level]} {word}" for level, word in _WORDS.items() if counts[level])
    console.print(f"{len(findings)} questions: {told}", highlight=False)
    if not everything and counts["ok"]:
        console.print("`--all` shows what is well too.", highlight=False)


_ORDER = ["problem", "warning", "unknown", "ok"]
_MARKS = {
    "problem": "[bold red]problem[/]",
    "warning": "[yellow]warning[/]",
    "unknown": "[cyan]not seen[/]",
    "ok": "[green]well[/]",
}
_WORDS = {"ok": "well", "warning": "to look at", "problem": "wrong", "unknown": "could not be seen"}
