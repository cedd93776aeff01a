"""The table of variants: every row can be built, is named once, and says all that the steps ask of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from align_exporter.export_options import OPSETS, ExportOptions
from align_exporter.variants import PRECISIONS, VARIANTS, Variant, imported, variant_of
from align_runtime.graph_entry import TARGETS
from align_runtime.parity import WIDEST
from align_runtime.precision import RULES

ROWS = pytest.mark.parametrize("row", VARIANTS, ids=lambda row: f"{row.name}-{row.target}")


@ROWS
def test_what_a_row_names_exists(row: Variant) -> None:
    for path in (row.builder, row.emulation):
        assert path is None or callable(imported(path))
    assert row.target in TARGETS
    assert row.base in TARGETS
    assert row.min_opset in OPSETS
    assert set(row.baselines) <= {other.name for other in VARIANTS}


@ROWS
def test_a_row_agrees_with_what_the_runtime_calls_its_precision(row: Variant) -> None:
    assert RULES[row.name] == (row.element_type, row.min_share)


@ROWS
def test_a_precision_beside_fp32_has_an_option(row: Variant) -> None:
    assert (row.builder is None) == (row.name not in PRECISIONS)


def test_names_and_files_are_unique() -> None:
    assert len({(row.name, row.target) for row in VARIANTS}) == len(VARIANTS)
    files = [row.file("text") for row in VARIANTS]
    assert len(set(files)) == len(files)
    assert files[:3] == ["onnx/text_model.onnx", "onnx/text_model_cpu.onnx", "onnx/text_model_fp16.onnx"]


def test_an_unknown_row() -> None:
    with pytest.raises(KeyError):
        variant_of("fp8", "any")


def test_options_choose_rows_in_the_order_of_the_table() -> None:
    assert ExportOptions().variants == ()
    chosen = ExportOptions(precisions=("int8", "fp16")).variants
    assert [row.exact_name for row in chosen] == ["fp16", "int8_cpu", "int8"]


def test_help_imports_nothing_heavy() -> None:
    """``align-export --help`` answers without torch, onnx and ONNX Runtime."""
    code = """
import sys
from align_exporter.cli.options import add_options
from align_runtime.console import CommandParser
parser = CommandParser("align-export")
add_options(parser)
parser.format_help()
heavy = {"torch", "onnx", "onnx_ir", "onnxruntime", "onnxscript"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_limits_of_the_table_are_those_that_verify_believes() -> None:
    for row in VARIANTS:
        for tower, limits in row.limits.items():
            assert limits.wider_than(WIDEST[row.name]) == (), (row.exact_name, tower)
    for name in {row.name for row in VARIANTS}:  # and not wider than needed
        rows, widest = [limits for row in VARIANTS if row.name == name for limits in row.limits.values()], WIDEST[name]
        assert widest.max_abs == max(limits.max_abs for limits in rows)
        assert widest.min_cosine == min(limits.min_cosine for limits in rows)
        assert widest.min_centred_cosine == min(limits.min_centred_cosine for limits in rows)
