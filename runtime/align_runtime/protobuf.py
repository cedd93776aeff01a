"""The protobuf wire format, walked in place: a file from outside may be refused, but it cannot hang or fill memory.

Format: https://protobuf.dev/programming-guides/encoding. A message is a row of fields; each begins with a varint that
holds its number and how its value is stored. Nothing is copied but the texts that are asked for, and the depth is that
of the calls of whoever walks, so no file can nest deeper than its schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are groups, which ONNX has never used
MAX_VARINT_BYTES = 10
MAX_FIELD_NUMBER = (1 << 29) - 1
# The vision graph of EfficientNet-B7 has 34,000 fields; half a million take about a second.
MAX_FIELDS = 500_000
MAX_TEXT_BYTES = 4096


class WireError(ValueError):
    """Bytes that are not the message that was expected. The text says what is wrong, not in which file."""


class FieldBudget:
    """How many fields may still be read, over all messages of a file: what bounds time and memory."""

    def __init__(self, fields: int = MAX_FIELDS) -> None:
        self._limit = self._left = fields

    def spend(self) -> None:
        """Counts one field. Raises WireError when too many were read."""
        if self._left == 0:
            raise WireError(f"it has more than {self._limit} fields")
        self._left -= 1


class Message:
    """The bytes from `start` to `end` of a mapped file, taken as a message, a text or packed numbers."""

    def __init__(self, data: mmap, start: int, end: int, budget: FieldBudget) -> None:
        self._data, self._start, self._end, self._budget = data, start, end, budget

    def fields(self) -> Iterator[tuple[int, int | Message]]:
        """Numbers and values of the fields, in the order of the file; fields of fixed width are passed over.

        Values are unsigned 64-bit integers or unread spans.

        Raises:
            WireError: a field that does not end inside the message, an unknown wire type, too many fields.
        """
        at = self._start
        while at < self._end:
            self._budget.spend()
            tag, at = self._varint(at)
            number, wire_type = tag >> 3, tag & 7
            if not 1 <= number <= MAX_FIELD_NUMBER:
                raise WireError(f"a field before byte {at} has the number {number}")
            if wire_type == VARINT:
                value, at = self._varint(at)
                yield number, value
            elif wire_type == BYTES:
                length, at = self._varint(at)
                at = self._advance(at, length)
                yield number, Message(self._data, at - length, at, self._budget)
            elif wire_type in (FIXED64, FIXED32):
                at = self._advance(at, 8 if wire_type == FIXED64 else 4)
            else:
                raise WireError(f"a field before byte {at} has the wire type {wire_type}")

    def text(self) -> str:
        """The span as UTF-8 text of at most `MAX_TEXT_BYTES`."""
        if self._end - self._start > MAX_TEXT_BYTES:
            raise WireError(f"a text at byte {self._start} has {self._end - self._start} bytes")
        try:
            return self._data[self._start : self._end].decode("utf-8")
        except UnicodeDecodeError:
            raise WireError(f"a text at byte {self._start} is not UTF-8") from None

    def packed(self) -> Iterator[int]:
        """The span as packed varints, unsigned 64-bit."""
        at = self._start
        while at < self._end:
            self._budget.spend()
            value, at = self._varint(at)
            yield value

    def _varint(self, at: int) -> tuple[int, int]:
        """The number that begins at byte `at`, and where the next byte after it is."""
        value = 0
        for index in range(min(MAX_VARINT_BYTES, self._end - at)):
            byte = self._data[at + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + index + 1
        raise WireError(f"a number at byte {at} does not end")

    def _advance(self, at: int, length: int) -> int:
        if length > self._end - at:
            raise WireError(f"a field at byte {at} has {length} bytes where {self._end - at} are left")
        return at + length


def integer(value: int | Message) -> int:
    """A field's value as int64."""
    if isinstance(value, Message):
        raise WireError("a number was expected where bytes are")
    return value - (1 << 64) if value >> 63 else value


def message(value: int | Message) -> Message:
    """A field's value as a message or text."""
    if not isinstance(value, Message):
        raise WireError(f"bytes were expected where the number {value} is")
    return value


def integers(value: int | Message) -> Iterator[int]:
    """A repeated number's field as int64: one number, or many where they are packed."""
    for number in value.packed() if isinstance(value, Message) else (value,):
        yield integer(number)
