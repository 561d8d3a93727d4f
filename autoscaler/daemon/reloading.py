"""Hot reload of policies: a set is validated as a whole and applied between two ticks, or not at all.

    asked (SIGHUP) or changed ─ stamp stands still ─ read and check all ─ wire ─ take over ─ close the retired
                                                          └────── any error ──────┴─► the last good set stays

Rules of this file: the loop continues whatever happens here. A set is in use as a whole or not at all. A failed attempt
is repeated only when the folder changes or a reload is requested, and is reported in log, metrics, status and journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from autoscaler.config.policy import Policy
from autoscaler.daemon.acts.uncordoning import give_back
from autoscaler.daemon.bounded import in_thread, within
from autoscaler.daemon.closing import Closable, close
from autoscaler.daemon.fleets import Fleet, FleetSetup
from autoscaler.daemon.last_good import LastGood
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.policies import Loaded, PolicyFolder, PolicyStatus, first_of
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.vms.tracked import ON_THE_WAY
from autoscaler.errors import AutoscalerError, ConfigError
from autoscaler.words import counted

T = TypeVar("T")

LEFT_OUT = "fleets whose policies cannot be used are left out"
MENDED = "policies of an earlier run are used"
LONGEST_POLL_S = 10.0
READ_WITHIN_S = 30.0
"""Longest wait for the folder, in seconds of the event loop. Its disk may hang, and many policies take a while to check."""


class RewiredFleets(Protocol):
    """Fleets that are wired after a change of policies."""

    @property
    def setups(self) -> tuple[FleetSetup, ...]:
        """All fleets, with kept or new adapters."""
        ...

    @property
    def fresh(self) -> tuple[Closable, ...]:
        """New adapters, to be closed if these fleets are not put into use."""
        ...

    @property
    def retired(self) -> tuple[Closable, ...]:
        """Adapters that these fleets no longer use, to be closed once these fleets are in use."""
        ...


Rewire = Callable[[Sequence[Policy], Sequence[FleetSetup]], RewiredFleets]
"""Wires fleets for new policies, given the present setups; raises AutoscalerError."""


class Reloads:
    """Follows the policy folder and puts changed policies into use.

    Args:
        daemon: The daemon whose policies are reloaded.
        folder: The folder of policies.
        rewire: Builds the adapters for new policies.
        loaded: The policies that the daemon started with.
        read_within_s: Longest wait for the folder, in seconds of the event loop.
        last_good: Stores policies that have come into use for the next run; None stores none.
        inline: Read in the caller's thread instead of a separate one; for runs on virtual time.
    """

    def __init__(
        self,
        daemon: Daemon,
        folder: PolicyFolder,
        rewire: Rewire,
        loaded: Loaded,
        *,
        read_within_s: float = READ_WITHIN_S,
        last_good: LastGood | None = None,
        inline: bool = False,
    ) -> None:
        self._daemon = daemon
        self._folder = folder
        self._rewire = rewire
        self._read_within_s = read_within_s
        self._inline = inline
        self._asked = asyncio.Event()
        self._tried = self._seen = loaded.stamp
        self._reading: Future[Any] | None = None
        self._last_good = last_good
        self._loaded: Loaded | None = loaded
        self._warned: frozenset[str] = frozenset()
        wrong = loaded.left_out + loaded.mended
        partial = bool(loaded.left_out)
        daemon.policies = PolicyStatus(daemon.clock.now(), loaded.digest, first_of(wrong), partial=partial)
        daemon.telemetry.policies_loaded(daemon.clock.now(), complete=not wrong)
        for said, texts in ((LEFT_OUT, loaded.left_out), (MENDED, loaded.mended)):
            for text in texts:
                daemon.telemetry.log.error("policies_rejected", text=f"{said}: {text}")
        self._warn(loaded.warnings)

    def ask(self) -> None:
        """Request a reload soon, even if nothing has changed."""
        self._asked.set()

    async def watch(self) -> None:
        """Follow the folder for ever."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            for said, texts in ((LEFT_OUT, loaded.left_out), (MENDED, loaded.mended)):
                if texts:
                    text = f"{said}: {first_of(texts)}"
                    await self._daemon.recorder.event("policies_rejected", text, self._daemon.clock.now())
            if not loaded.left_out and not loaded.mended:
                await self._keep(loaded.digest)
        while True:
            asked = await self._wait()
            try:
                stamp = await self._aside(self._folder.stamp)
            except TimeoutError:
                await self._reject(f"{self._folder.path} did not answer within {self._read_within_s:g} s")
                continue
            # A folder that is being written is left alone until two looks in a row find the same stamp.
            still, self._seen = stamp == self._seen, stamp
            if asked or (still and stamp != self._tried):
                self._tried = stamp
                await self._reload()

    async def _wait(self) -> bool:
        """Wait until the next look is due or a reload is requested; return whether one was requested."""
        clock = self._daemon.clock
        poll_s = min(self._daemon.settings.tick_s, LONGEST_POLL_S)
        sleep = asyncio.ensure_future(clock.sleep_until(clock.monotonic() + poll_s))
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({sleep, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            asked.cancel()
        found = self._asked.is_set()
        self._asked.clear()
        return found

    async def _reload(self) -> None:
        self._daemon.notifier.reloading()
        try:
            said = await self._take_over()
        except TimeoutError:
            await self._reject(f"{self._folder.path} did not answer within {self._read_within_s:g} s")
        except AutoscalerError as error:
            await self._reject(str(error))
        except Exception as error:  # noqa: BLE001  the last good set stays in use, whatever went wrong
            await self._reject(f"unexpected {type(error).__name__}: {error}; please report")
        else:
            now_s = self._daemon.clock.now()
            self._daemon.telemetry.policies_loaded(now_s, complete=True)
            self._daemon.telemetry.policy_reloads.labels("success").inc()
            self._daemon.telemetry.log.info("policies_reloaded", text=said)
            await self._daemon.recorder.event("policies_reloaded", said, now_s)
            await self._keep(self._daemon.policies.digest)
        finally:
            self._daemon.notifier.reloaded()

    async def _take_over(self) -> str:
        """Read, check and wire the policies and put them into use; return what has changed, in words."""
        digest = await self._aside(self._folder.digest)
        daemon = self._daemon
        if digest == daemon.policies.digest and not daemon.policies.error:
            return "nothing has changed"
        loaded = await self._aside(self._folder.load)
        if loaded.errors:
            raise ConfigError(first_of(loaded.errors))
        before = daemon.fleets.all
        rewired = self._rewire(loaded.policies, [fleet.setup for fleet in before])
        try:
            await daemon.take_over(rewired.setups)
        except BaseException:
            for adapter in rewired.fresh:
                await close(adapter, daemon.telemetry)
            raise
        daemon.policies = PolicyStatus(daemon.clock.now(), digest)
        self._warn(tuple(map(str, loaded.warnings)))
        given_back = await give_back(daemon, before)
        for adapter in rewired.retired:
            await close(adapter, daemon.telemetry)
        return "; ".join([_changes(before, daemon.fleets.all), *given_back])

    async def _keep(self, digest: str) -> None:
        """Store the policies in use for the next run; if that fails, log it: the next run then does without them."""
        last_good = self._last_good
        if last_good is None:
            return
        try:
            await self._aside(lambda: last_good.keep(self._folder, digest))
        except (TimeoutError, OSError, ConfigError) as error:
            why = str(error) or "no answer"
            if isinstance(error, OSError) and error.strerror:
                why = (
                    f"{error.strerror.lower()}: {error.filename2 or error.filename or 'the state directory'}"
                )
            text = f"a restart will not know these policies if a file is broken then: {why}"
            self._daemon.telemetry.log.warning("policies_not_kept", text=text)

    def _warn(self, warnings: Sequence[str]) -> None:
        """Log what is valid but probably not intended, once for as long as it stays in the policies."""
        for text in warnings:
            if text not in self._warned:
                self._daemon.telemetry.log.warning("policy_doubtful", text=text)
        self._warned = frozenset(warnings)

    async def _reject(self, why: str) -> None:
        daemon = self._daemon
        daemon.telemetry.policy_reloads.labels("failure").inc()
        daemon.telemetry.policy_reload_failed.set(1)
        if why == daemon.policies.error:
            return
        daemon.policies = replace(daemon.policies, error=why)
        text = f"the policies in use stay, since those in the folder cannot be used: {why}"
        daemon.telemetry.log.error("policies_rejected", text=text)
        await daemon.recorder.event("policies_rejected", text, daemon.clock.now())

    async def _aside(self, call: Callable[[], T]) -> T:
        """Make a call in a thread that blocks neither the loop nor the exit of the process, and return its result.

        Raises:
            TimeoutError: The call did not return in time, or an earlier call still has not.
            Exception: Whatever the call raises.
        """
        if self._inline:
            return call()
        if self._reading is not None and not self._reading.done():
            raise TimeoutError
        answer = self._reading = in_thread(call, "policies")
        return await within(lambda: asyncio.wrap_future(answer), self._read_within_s)


def _changes(before: Sequence[Fleet], after: Sequence[Fleet]) -> str:
    """Say, for people, what a reload changed."""
    was = {fleet.name: fleet for fleet in before}
    now = {fleet.name: fleet for fleet in after}
    parts = []
    added = [name for name in now if name not in was]
    changed = [name for name in now if name in was and now[name].policy != was[name].policy]
    removed = [name for name in was if name not in now]
    if added:
        parts.append(f"added {', '.join(added)}")
    if changed:
        parts.append(f"changed {', '.join(changed)}")
    parts += [f"removed {name}, whose {_left_running(was[name])}" for name in removed]
    if added and removed:
        old, new = (removed[0], added[0]) if len(added) == len(removed) == 1 else ("one", "another")
        parts.append(
            f"if {old} was renamed to {new}, tag its VMs with the new name (autoscaler:fleet), or they keep running unmanaged"
        )
    return "; ".join(parts) or "no policy has changed"


def _left_running(fleet: Fleet) -> str:
    """Say which VMs of a fleet are left as they are: those in service, and those on their way there."""
    inventory = fleet.inventory
    serving = len(inventory.in_phase(Phase.IN_SERVICE))
    arriving = sum(len(inventory.in_phase(phase)) for phase in ON_THE_WAY)
    stay = "stays as it is" if serving + arriving == 1 else "stay as they are"
    return f"{counted(serving, 'VM')} in service{f' and {arriving} on the way' if arriving else ''} {stay}"
