"""The options of ``align-export``, added and read group by group."""

from __future__ import annotations

import argparse
from pathlib import Path

from align_exporter.cli.calibration_options import add_calibration_options, check_calibration_options
from align_exporter.cli.engine_options import add_engine_options
from align_exporter.cli.fp16_options import add_fp16_options, read_fp16_options
from align_exporter.cli.int8_options import add_int8_options, read_int8_options
from align_exporter.cli.parity_options import add_parity_options, read_parity_options
from align_exporter.export_options import DEFAULT_OPSET, GRAPH_STAGES, OPSETS, PIXEL_INPUTS, ExportOptions
from align_exporter.variants import PRECISIONS
from align_runtime.console import add_output_options
from align_runtime.errors import ConfigurationError


def add_options(parser: argparse.ArgumentParser) -> None:
    """All arguments of the command."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="folder in Hugging Face layout, or a hub id (kakaobrain/align-base)")
    add("-o", "--output", metavar="BUNDLE", type=Path, required=True, help="folder to write")
    add("--revision", help="branch, tag or commit of a hub id")
    add(
        "--allow-pickle",
        action="store_true",
        help="also read pytorch_model.bin (torch's weights-only loader); safetensors is preferred where both exist",
    )
    add(
        "--pixel-input",
        choices=PIXEL_INPUTS,
        default="uint8",
        help="uint8: the graph takes RGB bytes (batch, height, width, 3) and normalizes them; float32: it takes "
        "normalized pixel_values (batch, 3, height, width) (default: uint8)",
    )
    add("--opset", type=int, choices=OPSETS, default=DEFAULT_OPSET, help=f"ONNX opset (default: {DEFAULT_OPSET})")
    group = parser.add_argument_group("precisions", "FP32 graphs are always written.")
    for name, text in PRECISIONS.items():
        group.add_argument(f"--{name}", action="store_true", help=text)
    add_fp16_options(parser)
    add_int8_options(parser)
    add_calibration_options(parser)
    add_parity_options(parser)
    add_engine_options(parser)
    add("--force", action="store_true", help="build even if the bundle is up to date")
    add(
        "--dump-graph",
        nargs=2,
        metavar=("STAGE", "FILE"),
        help=f"also write the FP32 graphs as they are at a stage ({' or '.join(GRAPH_STAGES)}) beside FILE, the name "
        "of each graph before FILE's suffix, to see what a pass gets or gives",
    )
    add_output_options(parser)


def read_options(options: argparse.Namespace) -> ExportOptions:
    """The checked options, without the calibration dataset, which is read later.

    Raises:
        ConfigurationError: a value out of range, or an option that does nothing without another one.
    """
    export = ExportOptions(
        precisions=tuple(name for name in PRECISIONS if getattr(options, name)),
        pixel_input=options.pixel_input,
        opset=options.opset,
        allow_pickle=options.allow_pickle,
        dump_graph=_dump_graph(options.dump_graph),
    )
    export = read_int8_options(options, export)
    export = read_fp16_options(options, export)
    check_calibration_options(options, export)
    for row in export.variants:
        if options.opset < row.min_opset:
            raise ConfigurationError(
                f"--{row.name} for {row.target} devices needs --opset {row.min_opset} or later, got {options.opset} "
                f"(--{row.name}-device leaves it out)"
            )
    return read_parity_options(options, export)


def _dump_graph(given: list[str] | None) -> tuple[str, Path] | None:
    if given is None:
        return None
    stage, file = given[0], Path(given[1])
    if stage not in GRAPH_STAGES:
        raise ConfigurationError(f"--dump-graph: expected {' or '.join(GRAPH_STAGES)}, got {stage!r}")
    if not file.suffix or not file.absolute().parent.is_dir():
        raise ConfigurationError(f"--dump-graph: expected a file such as graph.onnx in an existing folder, got {file}")
    return stage, file
