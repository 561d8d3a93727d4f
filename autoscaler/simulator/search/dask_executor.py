"""Runs parts of a sweep on many machines: an executor on Dask's scheduler.

The parts are values, and their results depend on nothing else, so results are the same to the bit wherever they are
computed. `distributed` is an extra (`dask`) and is imported only when a sweep asks for it.

Rules of this file: no part is lost silently. If a worker process dies, its parts are tried on others as often as the
scheduler allows. A part that ends those too is named in the result, and the rest goes on. When the iterator is closed,
outstanding parts are cancelled and the connection is closed. Nothing here starts or stops a scheduler.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from autoscaler.errors import AutoscalerError, ConfigError
from autoscaler.simulator.search.executors import Finished, LostPart, Work

CONNECT_S = 10.0
"""Seconds within which a scheduler must answer, or it counts as absent."""
PATIENCE_S = 60.0
_LOOK_S = 1.0
DASK_EXTRA = "install the extra: pip install 'vm-autoscaler[dask]'"


class Dask:
    """Runs parts on the machines of a Dask scheduler, which must have the same version of this program.

    Args:
        address: Address of the scheduler, for example tcp://10.0.0.5:8786.
        connect_s: Seconds within which it must answer.
        patience_s: Seconds without any worker after which the remaining parts count as lost.

    Raises:
        ConfigError: The extra is missing.
    """

    def __init__(self, address: str, *, connect_s: float = CONNECT_S, patience_s: float = PATIENCE_S) -> None:
        self._address = address
        self._connect_s = connect_s
        self._patience_s = patience_s
        _distributed()

    def run(self, work: Work, shared: Any, parts: Sequence[Any]) -> Iterator[Finished]:
        """Run all parts and yield each when it is finished (see `Executor.run`).

        Raises:
            AutoscalerError: A part raised it; results of other parts may have been yielded before.
            ConfigError: The scheduler does not answer, or has no workers.
        """
        distributed = _distributed()
        client = self._connected(distributed)
        try:
            common = pickle.dumps(shared)

            def given(numbers: Sequence[int]) -> dict[Any, int]:
                return {
                    client.submit(_compute, work, common, parts[number], pure=False): number
                    for number in numbers
                }

            again = []
            for finished in self._each(distributed, client, given(range(len(parts)))):
                if isinstance(finished.result, LostPart):
                    again.append(finished.number)
                else:
                    yield finished
            # Dask blames every part that a process had when it ended, so those are run again one at a time.
            for number in again:
                yield from self._each(distributed, client, given([number]))
        finally:
            client.close()

    def _each(self, distributed: Any, client: Any, pending: dict[Any, int]) -> Iterator[Finished]:
        """Yield the result of each submitted part as soon as it is known."""
        deserted = 0
        while pending:
            try:
                with client.as_current():
                    done = distributed.wait(list(pending), _LOOK_S, "FIRST_COMPLETED").done
            except TimeoutError:
                deserted = 0 if client.nthreads() else deserted + 1
                if deserted * _LOOK_S < self._patience_s:
                    continue
                why = f"the Dask scheduler at {self._address} had no workers for {self._patience_s:g} s"
                yield from (Finished(number, LostPart(why)) for number in pending.values())
                return
            deserted = 0
            for future in done:
                yield self._finished(pending.pop(future), future)
                future.release()

    def _connected(self, distributed: Any) -> Any:
        try:
            client = distributed.Client(self._address, timeout=self._connect_s, set_as_default=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the Dask scheduler at {self._address} does not answer ({_one_line(error)}); start one with "
                "`dask scheduler`, or compute here with --processes"
            ) from None
        if not client.scheduler_info().get("workers"):
            client.close()
            raise ConfigError(
                f"the Dask scheduler at {self._address} has no workers; start `dask worker {self._address}`"
            )
        return client

    def _finished(self, number: int, future: Any) -> Finished:
        error = future.exception() if future.status == "error" else None
        if error is None and future.status == "finished":
            return Finished(number, future.result())
        if isinstance(error, AutoscalerError):
            raise error
        if error is None or type(error).__name__ in {"KilledWorker", "FutureCancelledError"}:
            return Finished(
                number, LostPart(f"the worker processes at {self._address} that computed it ended")
            )
        raise error


def _compute(work: Work, common: bytes, part: Any) -> Any:
    """Compute one part on a worker; what all parts share is unpickled once per thread."""
    return work(_shared(common, threading.get_ident()), part)


@lru_cache(maxsize=64)
def _shared(common: bytes, _thread: int) -> Any:
    # Forecasts computed for one part are kept in the shared value for the next; threads must not share that cache.
    return pickle.loads(common)  # noqa: S301 - sent by the sweep that asked for the part


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise ConfigError(
            f"a sweep on a Dask scheduler needs the package distributed; {DASK_EXTRA}"
        ) from None
    return distributed


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
