"""Serialises core's state: named arrays with a fixed layout, compressed in slices.

Why not `pickle`: the data may be damaged or of another version, and loading it must yield nothing but numbers.

Rules of this file: the result equals the original to the bit, or is refused. Nothing here knows what the numbers mean.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator

import numpy as np

from autoscaler.clock import give_way
from autoscaler.core.state_base import Dumped
from autoscaler.core.types import Array

MOST_BYTES = 2**30
"""Most bytes that are unpacked; a larger body is refused."""
_SLICE = 2**18
"""Bytes that are compressed in one turn of the event loop: 2 to 4 ms."""
_KINDS = frozenset("biuf")


async def packed(dumped: Dumped) -> bytes:
    """Return a dump as bytes for `unpacked`; gives way to other tasks if it is large."""
    head: dict[str, object] = {}
    arrays: list[Array] = []
    for name, value in _flat(dumped, ""):
        if isinstance(value, np.ndarray):
            head[name] = [value.dtype.newbyteorder("<").str, list(value.shape)]
            arrays.append(value)
        else:
            head[name] = value
    text = json.dumps(head).encode()
    compress = zlib.compressobj(1)
    parts = [compress.compress(len(text).to_bytes(8, "little") + text)]
    done = 0
    for array in arrays:
        body = memoryview(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        for begin in range(0, len(body), _SLICE):
            part = body[begin : begin + _SLICE]
            parts.append(compress.compress(part))
            done += len(part)
            if done >= _SLICE:
                done = 0
                await give_way()
    parts.append(compress.flush())
    return b"".join(parts)


def unpacked(body: bytes) -> Dumped:
    """Return the dump that was packed.

    Raises:
        ValueError: The bytes are damaged, or not from `packed`.
    """
    expand = zlib.decompressobj()
    try:
        raw = expand.decompress(body, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"it is damaged: {error}") from error
    if not expand.eof or len(raw) < 8:
        raise ValueError("it ends too soon, or never")
    size = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8 : 8 + size])
    if not isinstance(head, dict):
        raise ValueError("its head is no table")  # noqa: TRY004  a matter of content, for one handler
    found: Dumped = {}
    at = 8 + size
    for name, value in head.items():
        if isinstance(value, list):
            array, at = _array(raw, at, value)
            _put(found, name, array)
        elif isinstance(value, int | float):
            _put(found, name, value)
        else:
            raise ValueError(f"{name} is no number")  # noqa: TRY004  as above
    if at != len(raw):
        raise ValueError("there is more than its head says")
    return found


def _array(raw: bytes, at: int, told: list[object]) -> tuple[Array, int]:
    kind, shape = told
    if not isinstance(kind, str) or not isinstance(shape, list):
        raise ValueError("an array without a shape")  # noqa: TRY004  as in `unpacked`
    try:
        dtype, dimensions = np.dtype(kind), [int(each) for each in shape]
    except TypeError as error:
        raise ValueError("an array of no numbers") from error
    if dtype.kind not in _KINDS or min(dimensions, default=0) < 0:
        raise ValueError("an array of no numbers")
    count = math.prod(dimensions)
    end = at + count * dtype.itemsize
    if end > len(raw):
        raise ValueError("an array ends too soon")
    own = dtype.newbyteorder("=")
    return np.frombuffer(raw, dtype, count, at).reshape(dimensions).astype(own), end


def _flat(dumped: Dumped, prefix: str) -> Iterator[tuple[str, Array | float | int]]:
    for name, value in dumped.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value.item() if isinstance(value, np.generic) else value


def _put(into: Dumped, name: str, value: Array | float) -> None:
    *above, last = name.split(".")
    for each in above:
        below = into.setdefault(each, {})
        if not isinstance(below, dict):
            raise ValueError(f"{name} is in two places")  # noqa: TRY004  as in `unpacked`
        into = below
    into[last] = value
