"""Checks that messages, docstrings and pages use the field's words; part of `make lint`.

Looks at every string in the packages, at their templates, and at every page. Each entry is a wording that this project
used once, and what to write instead.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("reference/align_reference", "calibration", "exporter", "runtime", "benchmarks")
PAGES = ("README.md", "CONTRIBUTING.md", "docs", "reference/align-tiny/README.md")
INSTEAD = {
    r"pictures?": "image(s)",
    r"samples of (your|the user's) own|own samples": "calibration dataset",
    r"runs? away|runaways?": "outlier images",
    r"worst fiftieth": "2 % trimmed mean",
    r"decisions that stay|same decisions": "top-1 agreement",
    r"as they come|token by token": "dynamic per-token quantization",
    r"bare inside": "fused without inner Q/DQ",
    r"FP16's end|lose its digits": "FP16 maximum; underflow to subnormals",
    r"takes? turns|in turns|rivals?|contestants?": "interleaved A/B timing, baseline, candidate",
    r"filled up to the next": "padded to the next profile or bucket",
    r"over the bus": "host-to-device copy",
    r"goes on where it was|go on where it was": "resumable calibration",
    r"proven": "verified, measured",
    r"is no (bundle|folder|image|number|version)": "is not a …",
    r"cannot be had": "not found",
    r"was expected|were expected": "expected X, got Y",
    r"the whole story": "full report",
    r"\w*quantis\w*|\w*normalis\w*|\w*tokenis\w*|\w*optimis\w*": "-iz-",
    r"ways of calibrating": "observers",
}
PATTERNS = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): instead for words, instead in INSTEAD.items()}


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """Line (from 0), the words found, and what to write instead."""
    for number, line in enumerate(text.splitlines()):
        for pattern, instead in PATTERNS.items():
            for match in pattern.finditer(line):
                yield number, match[0], instead


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Every string literal of a module with the line that it starts on, docstrings and f-strings included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def check(root: Path = ROOT) -> list[str]:
    """A line per finding, ``path:line: "words": write "…"``."""
    found = []
    for folder in CODE:
        for path in sorted((root / folder).rglob("*.py")):
            for start, text in strings(path.read_text(encoding="utf-8")):
                for number, words, instead in findings(text):
                    found.append(f'{path.relative_to(root)}:{start + number}: "{words}": write "{instead}"')
    pages = [path for name in PAGES for path in sorted((root / name).rglob("*.md")) or [root / name]]
    templates = [path for folder in CODE for path in sorted((root / folder).rglob("*.j2"))]
    for path in pages + templates:
        for number, words, instead in findings(path.read_text(encoding="utf-8")):
            found.append(f'{path.relative_to(root)}:{number + 1}: "{words}": write "{instead}"')
    return found


if __name__ == "__main__":
    lines = check()
    print("\n".join(lines))
    sys.exit(bool(lines))
