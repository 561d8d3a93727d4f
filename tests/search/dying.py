"""Work that fails, for the processes that compute parts. It is in a module of its own, because each process imports it anew.

A module of tests would import all that tests need, which takes longer than a part.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial

from autoscaler.errors import ConfigError
from autoscaler.simulator.search.executors import Processes


class Dying:
    """Computes in processes. Those with certain variants are killed, as the kernel does when memory is short.

    Args:
        work: The function that computes a part. It must belong to a module, so that processes can import it.
        deadly: A variant with all of these values kills its process.
    """

    def __init__(self, work, deadly: Mapping[str, object]):
        self.work, self.deadly = work, deadly

    def run(self, work, shared, parts):
        return Processes(2).run(partial(_or_dies, self.work, self.deadly), shared, parts)


def _or_dies(work, deadly, shared, part):
    if any(all(each.values.get(name) == value for name, value in deadly.items()) for each in part):
        os.kill(os.getpid(), signal.SIGKILL)
    return work(shared, part)


def wrong(shared, part):
    raise ConfigError(f"part {part} of {shared} is wrong")
