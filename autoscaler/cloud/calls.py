"""What every API call to the world passes through: the budget, injected faults, and the log.

Rules: every call goes through `Gateway.call`, so that the HTTP endpoint and the in-process provider have the same
budget and faults. Time is an argument. The operation passed in is what a call does. A malformed request (a missing
parameter, an unknown subnet) does not get here and is not logged.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from autoscaler.cloud.buckets import ApiBudget
from autoscaler.cloud.faults import Fault, FaultKind, FaultPlan, Scope
from autoscaler.errors import ProviderError

T = TypeVar("T")

CALLS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One API call as the world saw it.

    Attributes:
        at_s: Time at which it arrived.
        action: EC2's name of the action.
        vms: Number of VMs that it named or asked for.
        code: Error code if it was refused; empty if it was carried out.
        lost: Whether it was carried out although the caller was told otherwise.
    """

    at_s: float
    action: str
    vms: int
    code: str = ""
    lost: bool = False


class Gateway:
    """Passes the calls to one world through its budget and faults, and logs them."""

    def __init__(self, budget: ApiBudget, faults: FaultPlan) -> None:
        self._budget = budget
        self._faults = faults
        self.arrived = 0
        """Number of calls so far, which also addresses the random draws for faults on calls."""
        self.calls: deque[CallRecord] = deque(maxlen=CALLS_KEPT)
        """The latest calls, oldest first."""
        self.call_counts: Counter[tuple[str, str]] = Counter()
        """Number of calls by action and error code (empty if there was none)."""
        self.vm_counts: Counter[str] = Counter()
        """Number of VMs that successful calls named or asked for, by action."""

    def strike(
        self, kind: FaultKind, now_s: float, action: str, scopes: Sequence[Scope] | None
    ) -> Fault | None:
        """Return the first fault of a kind that strikes the current call, or None."""
        return self._faults.on_call(kind, now_s, action, scopes, self.arrived)

    def call(
        self,
        now_s: float,
        action: str,
        operation: Callable[[], T],
        *,
        vms: int = 0,
        scopes: Sequence[Scope] | None = (),
        plain: bool = False,
        dry_run: bool = False,
    ) -> T:
        """Make one call and return its result.

        Args:
            now_s: Time at which it arrives.
            action: EC2's name of the action.
            operation: What the call does. It raises ProviderError if EC2 would refuse, and then has changed nothing.
            vms: Number of VMs that it names or asks for, for the log.
            scopes: The VMs that it affects, for faults with a scope; None means all VMs.
            plain: Whether it is a describe without filters, ids and paging, which has a budget of its own.
            dry_run: Whether only to test if the call would be allowed; the answer is an error, as on EC2.

        Raises:
            ProviderError: The call was refused, failed, or succeeded with its reply lost.
        """
        self.arrived += 1
        try:
            self._admit(now_s, action, scopes, plain=plain, dry_run=dry_run)
            result = operation()
        except ProviderError as error:
            self._log(CallRecord(now_s, action, vms, error.code))
            raise
        lost = self.strike(FaultKind.LOST_REPLY, now_s, action, scopes)
        self._log(CallRecord(now_s, action, vms, "", lost is not None))
        if lost is not None:
            raise ProviderError("The provider failed while it answered", code=lost.reason_code)
        return result

    def spend_vms(self, now_s: float, action: str, count: int) -> None:
        """Take a call's VMs from the budget, or refuse the call with ProviderError."""
        if not self._budget.take_vms(action, count, now_s):
            raise ProviderError(f"The budget for VMs named by {action} is spent", code="RequestLimitExceeded")

    def _admit(
        self, now_s: float, action: str, scopes: Sequence[Scope] | None, *, plain: bool, dry_run: bool
    ) -> None:
        within = self._budget.take_request(action, now_s, plain=plain)
        throttle = self.strike(FaultKind.THROTTLE, now_s, action, scopes)
        if throttle is not None or not within:
            code = "RequestLimitExceeded" if throttle is None else throttle.reason_code
            raise ProviderError(f"The budget for {action} calls is spent", code=code)
        fault = self.strike(FaultKind.API_ERROR, now_s, action, scopes)
        if fault is not None:
            raise ProviderError(f"The provider refused or failed {action}", code=fault.reason_code)
        if dry_run:
            raise ProviderError("The call would have been done, but DryRun was set", code="DryRunOperation")

    def _log(self, record: CallRecord) -> None:
        self.calls.append(record)
        self.call_counts[record.action, record.code] += 1
        if not record.code:
            self.vm_counts[record.action] += record.vms
