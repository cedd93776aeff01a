"""Traces a torch module into an ONNX graph in memory."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
import torch
from torch import nn

from align_exporter.graph.specs import GraphContract
from align_runtime.errors import BuildError

# Example sizes of the dynamic dimensions: different, and neither 0 nor 1, which torch.export would make constant.
EXAMPLE_SIZES = {"batch": 2, "sequence": 7}


def trace(tower: nn.Module, contract: GraphContract, max_sequence: int, opset: int) -> ir.Model:
    """Traces `tower` with torch.export and returns its ONNX graph with folded constants, batch norms and padding.

    Args:
        tower: takes the inputs of `contract` as positional arguments, in order.
        contract: names, dtypes and shapes.
        max_sequence: upper bound of the dynamic dimension ``sequence``.
        opset: version of the default ONNX domain.

    Raises:
        BuildError: torch cannot trace the module or translate the trace to ONNX.
    """
    bounds = {"batch": torch.export.Dim("batch"), "sequence": torch.export.Dim("sequence", max=max_sequence)}
    examples = tuple(
        torch.zeros(
            [EXAMPLE_SIZES[size] if isinstance(size, str) else size for size in tensor.shape],
            dtype=getattr(torch, tensor.dtype),
        )
        for tensor in contract.inputs
    )
    dynamic = {
        tensor.name: {axis: bounds[size] for axis, size in enumerate(tensor.shape) if isinstance(size, str)}
        for tensor in contract.inputs
    }
    try:
        with quiet():
            program = torch.onnx.export(
                tower,
                examples,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[tensor.name for tensor in contract.inputs],
                output_names=[contract.output.name],
                opset_version=opset,
                optimize=True,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise BuildError(f"torch cannot export the {contract.tower} tower: {reason}") from error
    if program is None:
        raise BuildError(f"torch exported nothing for the {contract.tower} tower")
    return program.model


@contextmanager
def quiet() -> Iterator[None]:
    """Silences torch.onnx, which logs missing optional packages and warns about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
