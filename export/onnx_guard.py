"""What an ONNX file must be before any engine sees it: whole in itself, and made of standard operators only.

An ONNX file can point at other files, or at memory, for its weights, and can name operators that are code from
elsewhere. Engines follow such pointers while they load, so the file is walked first: a bounded walk over protobuf's
wire format that needs no protobuf. Whatever the walk does not know is refused, since an engine might know it.
"""

from __future__ import annotations

from export.manifest import MAX_FILE_SIZE, BundleError

STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
MAX_DEPTH = 64  # messages inside messages; protobuf itself stops at 100
MAX_FIELDS = 1_000_000  # a control policy has some hundred

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# By kind of message: field number (of onnx.proto) -> what it may be on the wire, or the kind of message inside
_V, _B, _PACKED = (_VARINT,), (_BYTES,), (_VARINT, _BYTES)
_FIELDS: dict[str, dict[int, tuple[int, ...] | str]] = {
    "model": {1: _V, 2: _B, 3: _B, 4: _B, 5: _V, 6: _B, 7: "graph", 8: _B, 14: _B, 20: _B, 25: _B, 26: _B},
    "graph": {
        1: "node", 2: _B, 5: "tensor", 10: _B, 11: _B, 12: _B, 13: _B, 14: _B, 15: "sparse tensor", 16: _B,
    },
    "node": {1: _B, 2: _B, 3: _B, 4: _B, 5: "attribute", 6: _B, 7: _B, 8: _B, 9: _B, 10: _B},
    "attribute": {
        1: _B, 2: (_FIXED32,), 3: _V, 4: _B, 5: "tensor", 6: "graph", 7: (_FIXED32, _BYTES), 8: _PACKED, 9: _B,
        10: "tensor", 11: "graph", 13: _B, 14: _B, 15: _B, 20: _V, 21: _B, 22: "sparse tensor", 23: "sparse tensor",
    },
    "tensor": {
        1: _PACKED, 2: _V, 3: _B, 4: (_FIXED32, _BYTES), 5: _PACKED, 6: _B, 7: _PACKED, 8: _B, 9: _B,
        10: (_FIXED64, _BYTES), 11: _PACKED, 12: _B, 13: _B, 14: _V, 16: _B,
    },
    "sparse tensor": {1: "tensor", 2: "tensor", 3: _PACKED},
}  # fmt: skip
_OUTSIDE = "has weights outside the file; a policy of gcl is one file: save it again without external data"
_FORBIDDEN = {
    ("model", 20): "has training graphs; only the part that infers may be on a robot",
    # Functions that call functions grow without bound when an engine unfolds them, and may take a standard name
    ("model", 25): "has functions of its own; inline them (onnx.inliner) before",
    ("tensor", 13): _OUTSIDE,
}
_NODE_DOMAIN, _DATA_LOCATION = ("node", 7), ("tensor", 14)


def check_onnx(raw: bytes, where: str) -> None:
    """Refuses an ONNX file that needs anything but itself and standard operators. Reads no other file, loads no engine.

    Args:
        raw: The file's bytes.
        where: Path for messages.

    Raises:
        BundleError: It is too large or not ONNX, has weights outside the file, training graphs, functions or operators
            of its own, is nested too deep, or holds something that this gcl does not know.
    """
    if not 0 < len(raw) <= MAX_FILE_SIZE:
        raise BundleError(f"{where}: {len(raw)} bytes, legal are 1 to {MAX_FILE_SIZE}")
    if (
        raw[4:8] == b"ORTM"
    ):  # ONNX Runtime's own format, which it would recognise by this and which the walk cannot read
        raise BundleError(f"{where}: is in ONNX Runtime's own format; expected ONNX")
    walk = _Walk(raw, where)
    pending = [("model", 0, len(raw), 0)]
    while pending:
        pending += walk.message(*pending.pop())


class _Walk:
    """One walk over one file; counts what it has seen."""

    def __init__(self, raw: bytes, where: str) -> None:
        self._raw, self._where = raw, where
        self._fields = 0

    def message(self, kind: str, at: int, end: int, depth: int) -> list[tuple[str, int, int, int]]:
        """Checks one message's own fields; returns the messages inside it: kind, begin, end, depth."""
        if depth > MAX_DEPTH:
            raise self._refusal(f"is nested more than {MAX_DEPTH} deep")
        inside = []
        while at < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise self._refusal(f"has more than {MAX_FIELDS} fields")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            known = _FIELDS[kind].get(number) if tag < 2**32 else None
            if known is None:
                raise self._refusal(
                    f"holds field {number} of a {kind}, which this gcl does not know: not ONNX, or newer"
                )
            if wire not in (_B if isinstance(known, str) else known):
                raise self._refusal(f"is not ONNX: field {number} of a {kind} has wire type {wire}")
            if (kind, number) in _FORBIDDEN:
                raise self._refusal(_FORBIDDEN[kind, number])
            begin, at, value = self._value(wire, at, end)
            if isinstance(known, str):
                inside.append((known, begin, at, depth + 1))
            elif (kind, number) == _DATA_LOCATION and value != 0:
                raise self._refusal(_OUTSIDE)
            elif (kind, number) == _NODE_DOMAIN:
                self._check_domain(self._raw[begin:at])
        return inside

    def _check_domain(self, raw: bytes) -> None:
        domain = raw.decode("utf-8", errors="backslashreplace")
        if domain not in STANDARD_DOMAINS:
            raise self._refusal(f"has an operator of domain {domain[:80]!r}; legal are those of ONNX itself")

    def _value(self, wire: int, at: int, end: int) -> tuple[int, int, int]:
        """Where a value begins and ends, and itself if it is a varint (else 0)."""
        if wire == _VARINT:
            value, after = self._varint(at, end)
            return at, after, value
        if wire == _BYTES:
            size, at = self._varint(at, end)
        else:
            size = 8 if wire == _FIXED64 else 4
        if size > end - at:
            raise self._refusal("is not ONNX, or cut short: a field reaches beyond its message")
        return at, at + size, 0

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self._raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise self._refusal("is not ONNX, or cut short: a number does not end")

    def _refusal(self, reason: str) -> BundleError:
        return BundleError(f"{self._where}: {reason}")
