"""Prometheus remote write 1.0 as pushed samples: snappy and protobuf, with series matched to fleets by labels.

Rules of this file: the uncompressed size of a body is checked before it is unpacked. A series that no policy selects is
ignored, since a Prometheus may send everything it has. A series that a policy selects but that cannot be used is left
to `push` to refuse. The two libraries are an extra, and are imported when the first body comes.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from autoscaler.errors import OversizedError, SourceError
from autoscaler.ports.pushing import LONGEST_NAME, MOST_SAMPLES, Intake, PushedSample

CONTENT_TYPE = "application/x-protobuf"
CONTENT_ENCODING = "snappy"
NAME_LABEL = "__name__"
MOST_SHOWN = 200
"""Most characters of a series or an error that are shown."""
_ENDED = struct.pack(">Q", 0x7FF0000000000002)
"""Bits of the NaN with which Prometheus marks the end of a series."""


class RemoteWrite:
    """The `SampleFormat` for remote write 1.0."""

    content_type = CONTENT_TYPE
    content_encoding = CONTENT_ENCODING

    def read(self, body: bytes, most_bytes: int, intakes: Sequence[Intake]) -> tuple[list[PushedSample], int]:
        """See `SampleFormat.read`. If the extra is not installed, this is a SourceError, too."""
        try:
            return samples_of(unpacked(body, most_bytes), intakes)
        except ImportError as error:
            raise SourceError(
                f"remote write needs the extra remote-write, which is not installed here ({error.name}); send JSON"
            ) from None


def unpacked(body: bytes, most_bytes: int) -> Any:
    """Parse a body into a WriteRequest.

    Raises:
        SourceError: The body is not a WriteRequest; the message says why.
        OversizedError: It unpacks to more than `most_bytes`.
    """
    snappy, packed_badly, request, written_badly = libraries()
    try:
        size = snappy.decompress_raw_len(body)
    except packed_badly as error:
        raise SourceError(f"the body is not snappy (block format): {_short(error)}") from None
    if size > most_bytes:
        raise OversizedError(
            f"the body unpacks to {size:,} bytes, and {most_bytes:,} are taken; lower max_samples_per_send"
        )
    try:
        return request.FromString(bytes(snappy.decompress_raw(body)))
    except (packed_badly, written_badly) as error:
        raise SourceError(
            f"the body is not a WriteRequest of remote write 1.0: {_short(error)}; set protobuf_message to "
            "prometheus.WriteRequest"
        ) from None


def samples_of(request: Any, intakes: Iterable[Intake]) -> tuple[list[PushedSample], int]:
    """The samples that policies select, and the number of those that were ignored.

    Raises:
        SourceError: A label for a fleet or a VM is too long to be a name.
        OversizedError: The request holds too many samples.
    """
    # A series without samples counts as one, because it takes work, too.
    count = sum(max(len(series.samples), 1) for series in request.timeseries)
    if count > MOST_SAMPLES:
        raise OversizedError(
            f"the request holds {count:,} samples, and {MOST_SAMPLES:,} are taken; lower max_samples_per_send"
        )
    by_metric = _by_metric(intakes)
    found: list[PushedSample] = []
    passed_over = 0
    for at, series in enumerate(request.timeseries):
        labels = {label.name: label.value for label in series.labels}
        asking = by_metric.get(labels.get(NAME_LABEL, ""), ())
        whose = _whose(labels, asking)
        if whose is not None and max(map(len, whose)) > LONGEST_NAME:
            raise SourceError(
                f"series {at} names a fleet or VM of more than {LONGEST_NAME} characters; see signal.push.vm_label"
            )
        if whose is None:
            passed_over += len(series.samples)
        else:
            found += _samples(series, labels, *whose)
    return found, passed_over


def _by_metric(intakes: Iterable[Intake]) -> Mapping[str, Sequence[Intake]]:
    found: defaultdict[str, list[Intake]] = defaultdict(list)
    for intake in intakes:
        if intake.series is not None:
            found[intake.series.metric].append(intake)
    return found


def _whose(labels: Mapping[str, str], asking: Sequence[Intake]) -> tuple[str, str] | None:
    """Fleet and VM of a series; None if no policy selects it.

    If its fleet label names none of the fleets that select it, that name is returned, for `push` to refuse.
    """
    stray = None
    for intake in asking:
        rule = intake.series
        if rule is None or any(labels.get(name) != value for name, value in rule.labels):
            continue
        if rule.fleet_label is None:
            return intake.fleet, labels.get(rule.vm_label, "")
        named = labels.get(rule.fleet_label)
        if named == intake.fleet:
            return named, labels.get(rule.vm_label, "")
        if named:
            stray = named, labels.get(rule.vm_label, "")
    return stray


def _samples(series: Any, labels: Mapping[str, str], fleet: str, vm: str) -> Iterator[PushedSample]:
    inside = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != NAME_LABEL)
    name = f"{labels.get(NAME_LABEL, '')}{{{inside}}}"
    name = name if len(name) <= MOST_SHOWN else f"{name[:MOST_SHOWN]}… ({hash(name):x})"
    for sample in series.samples:
        ended = struct.pack(">d", sample.value) == _ENDED
        yield PushedSample(fleet, vm, sample.value, sample.timestamp / 1000.0, series=name, ended=ended)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:MOST_SHOWN]


@cache
def libraries() -> tuple[Any, type[Exception], Any, type[Exception]]:
    """The snappy module and its error class; a WriteRequest class built as the specification numbers its fields, and its error."""
    from cramjam import DecompressionError, snappy
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="autoscaler/remote_write.proto", package="autoscaler.remote_write", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, Any]) -> None:
        made = file.message_type.add(name=name)
        for field, number, kind in fields:
            label = kinds.LABEL_REPEATED if isinstance(kind, str) else kinds.LABEL_OPTIONAL
            added = made.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                added.type = kind

    message("Label", ("name", 1, kinds.TYPE_STRING), ("value", 2, kinds.TYPE_STRING))
    message("Sample", ("value", 1, kinds.TYPE_DOUBLE), ("timestamp", 2, kinds.TYPE_INT64))
    message("TimeSeries", ("labels", 1, "Label"), ("samples", 2, "Sample"))
    message("WriteRequest", ("timeseries", 1, "TimeSeries"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    described = pool.FindMessageTypeByName(f"{file.package}.WriteRequest")
    return snappy, DecompressionError, message_factory.GetMessageClass(described), DecodeError
