"""Mutations of valid inputs: of bytes, and of JSON by its structure, which mutated bytes rarely survive."""

from __future__ import annotations

import json
from random import Random
from typing import Any

# Legal JSON that a reader may not expect: wrong kinds, ends of ranges, text that is hostile to print, deep nesting.
NASTY: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**30, -(10**400), 0.5, 1e-310, 5e-324, -0.0, 1e308, "", "\x00", "\x1b[2J",
    "\ud800", "\u202e", "../../etc/passwd", "/dev/zero", "C:\\x", "a" * 100_000, "{}", [], {}, [[]], [None] * 10_000,
    {"": {}}, {"type": "Regex"}, {"Regex": "(a+)+$"}, {"a" * 70_000: 1},
)  # fmt: skip
DEEP = "[" * 5_000 + "]" * 5_000
MAX_BYTES = 1 << 20


def mutate_json(data: bytes, random: Random) -> bytes:
    """`data` with one to three of its JSON values replaced, removed, repeated or moved; as bytes if it is not JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, random)
    for _ in range(random.randint(1, 3)):
        value = _mutated(value, random)
    try:
        text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    except (ValueError, RecursionError):
        return mutate_bytes(data, random)
    if random.random() < 0.01:
        text = text.replace("null", DEEP, 1)
    return text.encode("utf-8", "surrogatepass")[:MAX_BYTES]


def _mutated(value: Any, random: Random) -> Any:
    """`value` with a change at a place reached by a random walk from its root."""
    children = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not children or random.random() < 0.1:
        return random.choice(NASTY)
    key = random.choice(children)
    copy = value.copy()
    draw = random.random()
    if draw < 0.75:
        copy[key] = _mutated(value[key], random)
    elif draw < 0.85:
        del copy[key]
    elif isinstance(copy, dict):
        copy[random.choice(["x", "a\x1bb", str(random.choice(children)) + " "])] = value[key]
    else:
        copy.extend([value[key]] * random.choice([1, 2, 1000]))
    return copy


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """`data` with a few bytes flipped, set to ends of ranges, removed, repeated or cut off."""
    changed = bytearray(data or b"\x00")
    for _ in range(random.choice([1, 1, 2, 4, 16])):
        at, draw = random.randrange(len(changed)), random.random()
        if draw < 0.5:
            changed[at] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
        elif draw < 0.7:
            width = random.choice([2, 4, 8])
            end = random.choice([b"\x00", b"\xff", b"\x7f"])
            changed[at : at + width] = end * width
        elif draw < 0.8:
            del changed[at : at + random.choice([1, 8, 512])]
        elif draw < 0.9:
            changed[at:at] = changed[at : at + random.choice([1, 8, 512])]
        else:
            del changed[at:]
        changed = changed or bytearray(b"\x00")
    return bytes(changed[:MAX_BYTES])
