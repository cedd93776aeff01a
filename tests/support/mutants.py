"""Copies of a source file with one mistake in the use of a library: a name changed, or the last argument dropped."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`source` with the mistake that `title` names, e.g. ``"set_input_shape renamed"``."""

    title: str
    source: str


def mutants(source: str, names: Collection[str]) -> Iterator[Mutant]:
    """Yields a mutant for each attribute in `source` that is one of `names`, and another for a call with arguments."""
    for node in _expressions(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in names:
            yield Mutant(f"{node.attr} renamed", _with(source, node, f"{_text(source, node)}_gone"))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in names
            and node.args
        ):
            kept = [_text(source, argument) for argument in node.args[:-1]]
            kept += [_text(source, argument.value) for argument in node.keywords]
            call = f"{_text(source, node.func)}({', '.join(kept)})"
            yield Mutant(f"{node.func.attr} without an argument", _with(source, node, call))


def _expressions(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields all nodes except those in f-strings, whose positions Python 3.11 does not know."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.JoinedStr):
            yield node
            yield from _expressions(node)


def _text(source: str, node: ast.expr) -> str:
    return ast.get_source_segment(source, node) or ""


def _with(source: str, node: ast.expr, text: str) -> str:
    """`source` with `node` replaced by `text`."""
    lines = source.encode().splitlines(keepends=True)
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return (before + text.encode() + after).decode()
