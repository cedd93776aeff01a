"""Writes src/unicode_tables.cpp: what the pinned `tokenizers` package does with every code point.

The package mixes several versions of Unicode, so no library gives its results: it is asked about each code point.

    python runtime/cpp/generate_unicode_tables.py
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, __version__
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFD, BertNormalizer, Normalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

OUTPUT = Path(__file__).parent / "src" / "unicode_tables.cpp"
POINTS = [point for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF]
BLOCK = 128  # code points
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by arithmetic
ABOVE, LAST_CLASS = "\u0334", "\u0345"  # of the lowest and the highest combining class, 1 and 240
(REMOVED, SPACE, IDEOGRAPH, MARK, DECOMPOSED, LOWERED, COMBINING, SPLITS, PUNCTUATION, WORD, STRIPPED) = (
    1 << bit for bit in range(11)
)  # as in unicode_tables.hpp


def normalized(normalizer: Normalizer, texts: Iterable[str]) -> list[str]:
    return [normalizer.normalize_str(text) for text in texts]


def only(step: str) -> BertNormalizer:
    """The normalizer with one of its four steps alone."""
    steps = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return BertNormalizer(**{**steps, step: True})


def ends_of_token(**flags: bool) -> list[int]:
    """Where the added token "X" with `flags` ends in "X" and each code point; 0 where it is not found."""
    tokenizer = Tokenizer(WordPiece({"?": 0}, unk_token="?"))  # noqa: S106
    tokenizer.add_tokens([AddedToken("X", normalized=False, **flags)])
    encodings = tokenizer.encode_batch([f"X{chr(point)}" for point in POINTS])
    return [each.offsets[0][1] if each.ids[0] == tokenizer.token_to_id("X") else 0 for each in encodings]


def combining_ranks(points: Sequence[int]) -> dict[int, int]:
    """1, 2, … for the points that canonical ordering moves, in the order of their combining classes."""
    order = NFD()

    def goes_behind(first: int, second: int) -> bool:
        """Whether `first` has a higher class than `second`."""
        return order.normalize_str(chr(first) + chr(second)) == chr(second) + chr(first)

    marks = [
        point
        for point, behind, before in zip(
            points,
            normalized(order, (chr(point) + ABOVE for point in points)),
            normalized(order, (LAST_CLASS + chr(point) for point in points)),
            strict=True,
        )
        if behind == ABOVE + chr(point) or before == chr(point) + LAST_CLASS or chr(point) in ABOVE + LAST_CLASS
    ]
    classes: list[list[int]] = []
    for mark in marks:
        low, high = 0, len(classes)
        while low < high:  # the first class that is not below that of `mark`
            middle = (low + high) // 2
            low, high = (middle + 1, high) if goes_behind(mark, classes[middle][0]) else (low, middle)
        if low < len(classes) and not goes_behind(classes[low][0], mark):
            classes[low].append(mark)
        else:
            classes.insert(low, [mark])
    return {mark: rank for rank, members in enumerate(classes, 1) for mark in members}


def flags_of_points() -> tuple[list[int], dict[int, str], dict[int, str], dict[int, int]]:
    """Flags by code point, decompositions, lower case, and ranks of combining marks."""
    flags = [0] * 0x110000
    decomposed, clean, spaced, bare, lower = (
        dict(zip(POINTS, normalized(step, map(chr, POINTS)), strict=True))
        for step in (
            NFD(),
            *(only(name) for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")),
        )
    )
    decompositions = {point: text for point, text in decomposed.items() if text != chr(point)}
    marks = {point for point, text in bare.items() if text == "" and point not in decompositions}
    for point, text in decomposed.items():
        if "".join(one for one in text if ord(one) not in marks) != bare[point]:
            raise SystemExit(f"strip_accents of U+{point:04X} is not its decomposition without marks")
    ranks = combining_ranks([point for point in POINTS if point not in decompositions])
    changes = {point: text for point, text in lower.items() if text != chr(point)}
    pieces = [len(BertPreTokenizer().pre_tokenize_str(f"a{chr(point)}b")) for point in POINTS]
    for flag, points in {
        REMOVED: [point for point, text in clean.items() if text == ""],
        SPACE: [point for point, text in clean.items() if text == " "],
        IDEOGRAPH: [point for point, text in spaced.items() if text != chr(point)],
        MARK: marks,
        DECOMPOSED: decompositions,
        LOWERED: changes,
        COMBINING: ranks,
        SPLITS: [point for point, count in zip(POINTS, pieces, strict=True) if count == 2],
        PUNCTUATION: [point for point, count in zip(POINTS, pieces, strict=True) if count == 3],
        WORD: [point for point, end in zip(POINTS, ends_of_token(single_word=True), strict=True) if end == 0],
        STRIPPED: [point for point, end in zip(POINTS, ends_of_token(rstrip=True), strict=True) if end == 2],
    }.items():
        for point in points:
            flags[point] |= flag
    return flags, decompositions, changes, ranks


def array(kind: str, name: str, values: Sequence[int]) -> str:
    lines, line = [], "   "
    for value in values:
        text = f" {value}," if value < 1000 else f" {value:#x},"
        if len(line) + len(text) > 118:
            lines.append(line)
            line = "   "
        line += text
    return "\n".join((f"{kind} {name}[{len(values)}] = {{", *lines, line, "};"))


def replacements(name: str, texts: dict[int, str]) -> str:
    """The body of a function from a code point to its text; both are in arrays, the code points in order."""
    pool = [ord(one) for _, text in sorted(texts.items()) for one in text]
    ends = list(accumulate(len(text) for _, text in sorted(texts.items())))
    return "\n".join(
        (
            f"std::u32string_view {name}(char32_t point) {{",
            array("static constexpr char32_t", "POINTS", sorted(texts)),
            array("static constexpr std::uint16_t", "STARTS", [0, *ends]),
            array("static constexpr char32_t", "TEXTS", pool),
            "    const auto i = std::lower_bound(std::begin(POINTS), std::end(POINTS), point) - std::begin(POINTS);",
            "    return std::u32string_view(TEXTS + STARTS[i], STARTS[i + 1] - STARTS[i]);",
            "}",
        )
    )


def ranked(ranks: dict[int, int]) -> str:
    return "\n".join(
        (
            "std::uint8_t combining_rank(char32_t point) {",
            array("static constexpr char32_t", "POINTS", sorted(ranks)),
            array("static constexpr std::uint8_t", "RANKS", [ranks[point] for point in sorted(ranks)]),
            "    return RANKS[std::lower_bound(std::begin(POINTS), std::end(POINTS), point) - std::begin(POINTS)];",
            "}",
        )
    )


def table() -> str:
    """The text of src/unicode_tables.cpp."""
    flags, decompositions, lower, ranks = flags_of_points()
    blocks: dict[tuple[int, ...], int] = {}
    index = [blocks.setdefault(tuple(flags[at : at + BLOCK]), len(blocks)) for at in range(0, len(flags), BLOCK)]
    decompositions = {point: text for point, text in decompositions.items() if point not in HANGUL}
    parts = [
        f"// Made by generate_unicode_tables.py with tokenizers {__version__}; do not edit.",
        '#include "unicode_tables.hpp"\n\n#include <algorithm>\n#include <iterator>\n',
        "namespace align::unicode {\n",
        array("const std::uint8_t", "BLOCKS", index),
        array("const std::uint16_t", "FLAGS", [flag for block in blocks for flag in block]),
        replacements("decomposition", decompositions),
        replacements("lower", lower),
        ranked(ranks),
        "} // namespace align::unicode",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(table(), encoding="utf-8")
