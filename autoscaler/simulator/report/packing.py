"""Packs numbers and sentences into a page: typed arrays in one gzip stream, base64-encoded.

The layout, which `unpack` in page.js reads: four bytes with the length of a JSON header (little endian), the header, and the
arrays one after another, each aligned to a multiple of 8 bytes after the end of the header. The header has the name, type,
offset and length of every array. Sentences are one UTF-8 text with one sentence per line.

Rules of this file: equal input gives equal bytes.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNED = 8
_LEVEL = 6  # level 9 takes 30 % longer for 0.3 % less


def packed(arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, Sequence[str]]) -> str:
    """Pack arrays (float32, float64, int32) and lists of sentences into base64 text."""
    header: list[dict[str, object]] = []
    body = bytearray()
    parts = [(name, str(array.dtype), _little(array)) for name, array in arrays.items()]
    parts += [(name, "text", _lines(lines)) for name, lines in texts.items()]
    for name, kind, data in parts:
        header.append({"name": name, "type": kind, "at": len(body), "bytes": len(data)})
        body += data + b"\0" * (-len(data) % _ALIGNED)
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-(4 + len(told)) % _ALIGNED)
    return zipped(len(told).to_bytes(4, "little") + told + bytes(body))


def zipped(data: bytes) -> str:
    """Compress bytes with gzip, without time or name in the header, and encode them as base64."""
    return base64.b64encode(gzip.compress(data, _LEVEL, mtime=0)).decode("ascii")


def _little(array: NDArray[Any]) -> bytes:
    if array.dtype not in (np.float32, np.float64, np.int32):
        msg = f"a page holds float32, float64 and int32 only, not {array.dtype}"
        raise TypeError(msg)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _lines(lines: Sequence[str]) -> bytes:
    return "\n".join(" ".join(line.split()) for line in lines).encode("utf-8", "replace")
