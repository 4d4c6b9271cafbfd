"""Read the weights and the nodes of an ONNX file without the onnx package: a protocol-buffer walk of a page.

Fields used (onnx.proto): ModelProto.graph = 7; GraphProto.node = 1, initializer = 5; NodeProto.input = 1, name = 3,
op_type = 4; TensorProto.dims = 1, data_type = 2, float_data = 4, name = 8, raw_data = 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

DTYPES = {1: np.dtype("<f4"), 6: np.dtype("<i4"), 7: np.dtype("<i8"), 10: np.dtype("<f2"), 11: np.dtype("<f8")}


@dataclass(frozen=True)
class Node:
    """One operation: its name, kind and the names of what goes in."""

    name: str
    kind: str
    inputs: list[str]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("not an ONNX file: a number runs past its end")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) pairs of a message: int for numbers, a view for bytes, strings and messages."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield field, value
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length, at = _varint(data, at)
        if length is None or at + length > len(data):
            raise ValueError(f"not an ONNX file: field {field} of wire type {wire} does not fit")
        yield field, data[at : at + length]
        at += length


def _tensor(message: memoryview) -> tuple[str, np.ndarray | None]:
    dims: list[int] = []
    kind, name, raw, floats = 0, "", None, None
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            dims.append(value)
        elif field == 1:
            at = 0
            while at < len(value):
                number, at = _varint(value, at)
                dims.append(number)
        elif field == 2:
            kind = int(value)
        elif field == 4 and not isinstance(value, int):
            floats = np.frombuffer(value, "<f4")
        elif field == 8:
            name = bytes(value).decode()
        elif field == 9:
            raw = value
    if kind not in DTYPES or (raw is None and floats is None):
        return name, None
    flat = floats if raw is None else np.frombuffer(raw, DTYPES[kind])
    return name, flat.reshape(dims)


def read_onnx(content: bytes) -> tuple[dict[str, np.ndarray], list[Node]]:
    """(initializers by name, nodes in order). Raises ValueError where the bytes are no ONNX model."""
    graphs = [value for field, value in _fields(memoryview(content)) if field == 7 and not isinstance(value, int)]
    if len(graphs) != 1:
        raise ValueError(f"not an ONNX file: expected one graph, found {len(graphs)}")
    weights, nodes = {}, []
    for field, value in _fields(graphs[0]):
        if field == 5:
            name, array = _tensor(value)
            if array is not None:
                weights[name] = array
        elif field == 1:
            parts = [(number, bytes(part).decode()) for number, part in _fields(value) if number in (1, 3, 4)]
            single = dict(parts)
            nodes.append(Node(single.get(3, ""), single.get(4, ""), [text for number, text in parts if number == 1]))
    return weights, nodes
