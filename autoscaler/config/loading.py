"""Loads policy files, one per fleet over `defaults.yaml`, and reports all problems of all files at once.

Rules of this file: a bad file never affects the others, and no file raises; problems are in `errors`. Only an invalid
defaults file makes all policies unusable, because no policy is complete without it.

Not here: what is valid (`policy`, `checks`) and the wording of messages (`messages`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError

from autoscaler.config.checks import check_policy
from autoscaler.config.checks_places import check_place
from autoscaler.config.checks_shared import check_shared
from autoscaler.config.documents import Document, Mark, Problem, Severity, ancestors, read_document
from autoscaler.config.finding import Finding
from autoscaler.config.messages import validation_problems
from autoscaler.config.objective import RELAXED_GUARDS, has_objective
from autoscaler.config.policy import Policy
from autoscaler.config.sharing import SharedLimits
from autoscaler.errors import ConfigError

DEFAULTS = "defaults.yaml"
DEFAULT_TICK_S = 10.0
_NOTHING: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies of a folder, with the problems found.

    Attributes:
        policies: The usable policies, sorted by fleet name.
        files: The file of each fleet's policy.
        errors: What makes files unusable; empty if all is well.
        warnings: What works, but probably not as intended.
    """

    policies: tuple[Policy, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def load_policies(
    directory: Path,
    tick_s: float = DEFAULT_TICK_S,
    now_s: float | None = None,
    instead: Mapping[str, bytes] = _NOTHING,
    places: Collection[str] | None = None,
) -> PolicySet:
    """Load every `*.yaml` and `*.yml` of a folder (except hidden files) over its `defaults.yaml`.

    Args:
        directory: The folder.
        tick_s: Length of a tick, seconds, which some checks use.
        now_s: Epoch seconds, to find events that are over; None if the policies may be run on the past.
        instead: Contents to use in place of those of the files, by file name.
        places: Names of the places in the settings, as for `check_place`; None if they are not known.
    """
    if not directory.is_dir():
        advice = (
            "change to its folder, or name one with one YAML file per fleet: `policies` in autoscaler.toml, "
            "AUTOSCALER_POLICIES, or `--policies` of the command that has it"
        )
        return PolicySet(errors=(Problem(Mark(directory), "there is no such folder", advice),))
    try:
        files = sorted(file for file in directory.iterdir() if _is_policy_file(file))
    except OSError as error:
        return PolicySet(errors=(Problem(Mark(directory), f"the folder cannot be read: {error.strerror}"),))
    defaults = _load_defaults(directory / DEFAULTS, instead=instead.get(DEFAULTS))
    loaded = [_load(file, defaults, tick_s, now_s, instead.get(file.name), places) for file in files]
    problems = [*defaults.problems, *(problem for one in loaded for problem in one.problems)]
    doubled = _doubled_fleets(loaded)
    problems += doubled
    if not defaults.problems:
        problems += _shared_problems(defaults, loaded)
    if not files:
        problems.append(
            Problem(Mark(directory), "there is no policy in this folder", "add one YAML file per fleet")
        )
    stopped = {problem.mark.file for problem in doubled}
    usable = [] if defaults.problems else [one for one in loaded if one.policy and one.file not in stopped]
    return _policy_set(usable, problems)


def load_policy(
    file: Path,
    defaults: Path | None = None,
    tick_s: float = DEFAULT_TICK_S,
    now_s: float | None = None,
    places: Collection[str] | None = None,
) -> PolicySet:
    """Load one file.

    Args:
        file: The policy.
        defaults: The defaults to load it over; None takes the `defaults.yaml` beside it, if there is one.
        tick_s: Length of a tick, seconds, which some checks use.
        now_s: Epoch seconds, to find events that are over; None if the policy may be run on the past.
        places: Names of the places in the settings, as for `check_place`; None if they are not known.

    Returns:
        A set with the policy, or without one and with the errors.
    """
    below = _load_defaults(defaults or file.parent / DEFAULTS, wanted=defaults is not None)
    one = _load(file, below, tick_s, now_s, places=places)
    usable = [one] if one.policy and not below.problems else []
    return _policy_set(usable, [*below.problems, *one.problems])


def require_policy(file: Path, defaults: Path | None = None, tick_s: float = DEFAULT_TICK_S) -> Policy:
    """Load one file and return its policy.

    Raises:
        ConfigError: The policy is invalid; the message has one line per error.
    """
    loaded = load_policy(file, defaults, tick_s)
    if loaded.errors:
        raise ConfigError("\n".join(map(str, loaded.errors)))
    return loaded.policies[0]


def policy_with(changes: Document, file: Path, tick_s: float = DEFAULT_TICK_S) -> PolicySet:
    """Load one file with changes merged over it, as if they were written in it.

    Args:
        changes: Sections and keys of a policy; problems are placed where these are written.
        file: The policy; it is loaded over the `defaults.yaml` beside it, if there is one.
        tick_s: Length of a tick, seconds, which some checks use.

    Returns:
        A set with the policy, or without one and with the errors.
    """
    defaults, own = _load_defaults(file.parent / DEFAULTS), read_document(file)
    problems = [*defaults.problems, *own.problems]
    loaded = _Loaded(file, own, own.data.get("fleet"), problems=problems)
    if not problems:
        written = changes.merged_over(own)
        _judge(loaded, written, _over(written, defaults), tick_s)
    return _policy_set([loaded] if loaded.policy else [], loaded.problems)


def _is_policy_file(file: Path) -> bool:
    return file.suffix in {".yaml", ".yml"} and not file.name.startswith(".") and file.name != DEFAULTS


@dataclass(slots=True)
class _Loaded:
    """One file with its problems, and its policy if there are no errors."""

    file: Path
    document: Document
    fleet: object = None
    policy: Policy | None = None
    problems: list[Problem] = field(default_factory=list)


def _policy_set(usable: Iterable[_Loaded], problems: Iterable[Problem]) -> PolicySet:
    policies = {one.policy.fleet: one for one in usable if one.policy}
    # A fault in the defaults appears under every fleet but is reported once. Problems at one place keep the order of the checks.
    unique = sorted(
        dict.fromkeys(problems),
        key=lambda problem: (problem.mark.file, problem.mark.line, problem.mark.column),
    )
    return PolicySet(
        policies=tuple(one.policy for _, one in sorted(policies.items()) if one.policy),
        files={fleet: one.file for fleet, one in sorted(policies.items())},
        errors=tuple(problem for problem in unique if problem.severity is Severity.ERROR),
        warnings=tuple(problem for problem in unique if problem.severity is Severity.WARNING),
    )


def _load_defaults(file: Path, *, wanted: bool = False, instead: bytes | None = None) -> Document:
    """Load the defaults and check them alone; keys that only a fleet can give may be missing."""
    if not file.exists() and not wanted:
        return Document(file)
    document = read_document(file, instead)
    if document.problems:
        return document
    if "fleet" in document.data:
        document.problems.append(
            Problem(
                document.mark(("fleet",), of_key=True), "defaults cannot name a fleet", "remove `fleet` here"
            )
        )
    document.problems += _findings_but_missing(document)
    return document


def _findings_but_missing(document: Document) -> list[Problem]:
    try:
        Policy.model_validate(document.data)
    except ValidationError as error:
        return validation_problems(error, document, whole=False)
    return []


def _load(
    file: Path,
    defaults: Document,
    tick_s: float,
    now_s: float | None,
    instead: bytes | None = None,
    places: Collection[str] | None = None,
) -> _Loaded:
    own = read_document(file, instead)
    loaded = _Loaded(file, own, own.data.get("fleet"), problems=list(own.problems))
    if own.problems:
        return loaded
    if defaults.problems:
        loaded.problems += _findings_but_missing(own)
        return loaded
    _judge(loaded, own, _over(own, defaults), tick_s, now_s, places)
    return loaded


def _judge(
    loaded: _Loaded,
    own: Document,
    merged: Document,
    tick_s: float,
    now_s: float | None = None,
    places: Collection[str] | None = None,
) -> None:
    """Validate the merged document: add its problems to `loaded`, and its policy if there are no errors."""
    try:
        policy = Policy.model_validate(merged.data)
    except ValidationError as error:
        loaded.problems += validation_problems(error, merged)
        return
    if _says_otherwise(own, policy):
        advice = f"write `shared` into {DEFAULTS} alone"
        place = own.mark(("shared",), of_key=True)
        loaded.problems.append(
            Problem(place, "limits that fleets share are the same for all of them", advice)
        )
        return
    findings = check_policy(policy, tick_s, now_s)
    if places is not None:
        findings += check_place(policy, places)
    loaded.problems += [_placed(finding, own, merged) for finding in findings]
    if not any(finding.severity is Severity.ERROR for finding in findings):
        loaded.policy = _with_resolved_trace(policy, loaded.file)


def _over(own: Document, defaults: Document) -> Document:
    """Merge a fleet's file over the defaults.

    Guards that an objective makes unnecessary apply only if the fleet's own file has them. Limits that fleets share are always
    those of the defaults.
    """
    merged = own.merged_over(defaults)
    if "shared" in own.data:
        merged.data["shared"] = defaults.data.get("shared", [])
    if has_objective(merged.data):
        guards, written = merged.data.get("guards"), own.data.get("guards")
        if isinstance(guards, dict):
            kept = written if isinstance(written, dict) else {}
            merged.data["guards"] = {
                key: value for key, value in guards.items() if key in kept or key not in RELAXED_GUARDS
            }
    return merged


def _says_otherwise(own: Document, policy: Policy) -> bool:
    """Return whether a fleet's file has shared limits that differ from those in force. A printed policy repeats them unchanged."""
    if "shared" not in own.data:
        return False
    try:
        return (
            TypeAdapter(tuple[SharedLimits, ...]).validate_python(own.data["shared"], strict=False)
            != policy.shared
        )
    except ValidationError:
        return True


def _placed(finding: Finding, own: Document, merged: Document) -> Problem:
    """Return the finding as a problem at the line to change: one in the fleet's own file, if there is one."""
    wrote = (path for path in finding.paths if path in own.keys or path in own.values)
    path = next(wrote, None)
    if path is None:
        above = next((up for up in ancestors(finding.paths[0]) if up in own.keys), None)
        path = finding.paths[0] if above is None else above
    of_key = isinstance(path[-1], str)
    return Problem(merged.mark(path, of_key=of_key), finding.message, finding.advice, finding.severity)


def _with_resolved_trace(policy: Policy, file: Path) -> Policy:
    """Return the policy with the path of its trace resolved against the policy's own folder, not the current one."""
    trace = policy.signal.trace
    if trace is None or trace.file is None:
        return policy
    resolved = trace.model_copy(update={"file": str((file.parent / trace.file).resolve())})
    return policy.model_copy(update={"signal": policy.signal.model_copy(update={"trace": resolved})})


def _shared_problems(defaults: Document, loaded: Sequence[_Loaded]) -> Iterator[Problem]:
    names = {one.fleet for one in loaded if isinstance(one.fleet, str)}
    for finding in check_shared([one.policy for one in loaded if one.policy], names):
        yield Problem(defaults.mark(finding.paths[0]), finding.message, finding.advice, finding.severity)


def _doubled_fleets(loaded: Iterable[_Loaded]) -> list[Problem]:
    by_fleet: dict[str, list[_Loaded]] = {}
    for one in loaded:
        if isinstance(one.fleet, str):
            by_fleet.setdefault(one.fleet, []).append(one)
    return [
        Problem(
            one.document.mark(("fleet",)),
            f"fleet `{fleet}` has another policy in {', '.join(other.file.name for other in group if other is not one)}",
            "keep one of them; until then neither is used",
        )
        for fleet, group in by_fleet.items()
        if len(group) > 1
        for one in group
    ]
