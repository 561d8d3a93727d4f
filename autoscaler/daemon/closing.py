"""Closes adapters at shutdown or after a reload: bounded in time, and never raises."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from autoscaler.daemon.bounded import within
from autoscaler.daemon.telemetry import Telemetry

CLOSE_WITHIN_S = 5.0


@runtime_checkable
class Closable(Protocol):
    """An adapter that holds resources until it is closed."""

    async def close(self) -> None:
        """Release them."""
        ...


async def close(adapter: Closable, telemetry: Telemetry) -> None:
    """Close an adapter within a time limit. A failure is only logged, so that the other adapters are closed too."""
    name = type(adapter).__name__
    try:
        await within(adapter.close, CLOSE_WITHIN_S)
    except TimeoutError:
        telemetry.log.warning("close_failed", text=f"{name} did not close within {CLOSE_WITHIN_S:g} s")
    except Exception as error:  # noqa: BLE001  as the docstring says
        telemetry.log.warning("close_failed", text=f"{name}: {error}")
