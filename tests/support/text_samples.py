"""Texts and vocabularies for comparing tokenizers: all scripts, all code points, and known difficult cases."""

from __future__ import annotations

import functools
import random
import unicodedata
from pathlib import Path

from tokenizers.implementations import BertWordPieceTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LIMIT = 0x30000  # planes 0 to 2: all living scripts, symbols, emoji and ideographs

SCRIPTS = {
    "latin": (0x61, 0x7A),
    "latin with accents": (0xC0, 0x17F),
    "latin additional": (0x1E00, 0x1EFF),
    "greek": (0x386, 0x3CE),
    "cyrillic": (0x400, 0x45F),
    "armenian": (0x531, 0x587),
    "hebrew": (0x5D0, 0x5EA),
    "arabic": (0x620, 0x64A),
    "devanagari": (0x904, 0x94D),
    "thai": (0xE01, 0xE3A),
    "georgian": (0x10A0, 0x10FF),
    "hangul": (0xAC00, 0xAD00),
    "jamo": (0x1100, 0x11C2),
    "kana": (0x3041, 0x30FF),
    "ideographs": (0x4E00, 0x4F00),
    "ideographs, plane 2": (0x20000, 0x200FF),
    "compatibility": (0xFB00, 0xFB17),
    "full width": (0xFF01, 0xFF5E),
    "deseret": (0x10400, 0x1044F),
    "mathematical": (0x1D400, 0x1D4FF),
    "combining": (0x300, 0x36F),
    "punctuation": (0x2010, 0x205E),
    "symbols": (0x2190, 0x23FF),
    "emoji": (0x1F300, 0x1F64F),
    "controls": (0x00, 0x1F),
    "more controls": (0x7F, 0x9F),
    "formatting": (0x200B, 0x200F),
    "private": (0xE000, 0xE0FF),
    "selectors": (0xFE00, 0xFE0F),
    "specials": (0xFFF0, 0xFFFF),
}
SPACES = [
    *(" ", "  ", "\t", "\n", "\r\n", "\x0b", "\x85", "\xa0"),
    *("\u1680", "\u2003", "\u2028", "\u202f", "\u3000", "\ufeff"),
]
FIXED = [
    *SPECIAL,
    *("[mask]", "[CLS", "CLS]", "[ CLS ]", "[[SEP]]", "##s", "##", "#", "'s", "n't", "...", "a.b-c_d@e", "$9.99"),
    *("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f44d\U0001f3fd"),
    *("\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "1\ufe0f\u20e3"),  # a flag, a heart, a keycap
    *(
        "\ufb01",
        "ß",
        "\u1e9e",
        "\u0130",
        "\u0131",
        "\u017f",
        "\u212a",
        "\u212b",
        "\u2126",
        "\u01c5",
        "\u0390",
        "\u1f56",
    ),
    *("\uac00", "\u1100\u1161\u11a8", "क्षि", "ไทย", "日本語", "中文abc文", "\U0002f81a"),
    *("e\u0301", "\u0301", "a\u0323\u0302", "x\u20e3", "\u0344", "\0", "\ufffd", "\u202e"),
]


def code_point_texts() -> list[str]:
    """Every code point below `LIMIT` except surrogates: inside a word, alone, and at the end of a word."""
    points = [chr(point) for point in range(LIMIT) if not 0xD800 <= point <= 0xDFFF]
    return [f"a{point}b {point} x{point}" for point in points]


@functools.cache
def fuzzed_texts(count: int, seed: int) -> list[str]:
    """Random mixtures of scripts, spaces, special tokens, very long words and plain captions, from `seed`."""
    draw = random.Random(seed)
    return [_text(draw) for _ in range(count)]


def _text(draw: random.Random) -> str:
    scripts = draw.sample(list(SCRIPTS.values()), draw.randint(1, 4))
    parts = []
    for _ in range(draw.choice([0, 1, 2, 5, 9, 20, 60])):
        kind = draw.random()
        if kind < 0.55:
            low, high = draw.choice(scripts)
            length = draw.choice([1, 2, 3, 5, 8, 13]) if kind > 0.01 else draw.choice([99, 100, 101, 130])
            word = "".join(chr(draw.randint(low, high)) for _ in range(length))
            parts.append(draw.choice([str, str.upper, str.title, _decomposed])(word))
        elif kind < 0.7:
            parts.append(draw.choice(FIXED))
        elif kind < 0.75:
            point = draw.randrange(0x110000)
            parts.append("\ufffd" if 0xD800 <= point <= 0xDFFF else chr(point))
        else:
            parts.append(draw.choice(SPACES))
    return draw.choice(["", "", " "]).join(parts)


def _decomposed(word: str) -> str:
    return unicodedata.normalize("NFD", word)


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """About 50,000 tokens: trained pieces of all scripts, and every seventh code point as a word and as a piece."""
    trained = BertWordPieceTokenizer(strip_accents=False, lowercase=False)
    trained.train_from_iterator(fuzzed_texts(4000, seed=1), vocab_size=12_000, show_progress=False, limit_alphabet=9000)
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    pieces += [*"abcdefghijklmnopqrstuvwxyz", "##x", "##b", "caf", "##e", "naive"]
    every = [chr(point) for point in range(0x21, LIMIT, 7) if unicodedata.category(chr(point))[0] not in "CZ"]
    pieces += every + [f"##{point}" for point in every]
    lines = dict.fromkeys([*SPECIAL, *pieces])
    return tuple(line for line in lines if line == line.strip() and "\n" not in line and line.isprintable())


def write_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
