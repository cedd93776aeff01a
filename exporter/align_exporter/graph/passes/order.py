"""Which passes run on which tower, in which order, and how many rewrites each of them makes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from align_exporter.graph.passes.clean_up import ReadableNames, RemoveUnused
from align_exporter.graph.passes.constant_reshape import ConstantReshape
from align_exporter.graph.passes.global_pool import GlobalPool
from align_exporter.graph.passes.query_scale import FoldQueryScale
from align_exporter.graph.passes.token_type import FoldTokenType
from align_reference.config import AlignConfig
from align_runtime.errors import BuildError

logger = logging.getLogger(__name__)


class GraphPass(Protocol):
    """A rewrite that keeps what the graph computes. It changes `model` in place and does no I/O."""

    def __call__(self, model: ir.Model) -> int:
        """Rewrites every match and returns the number of rewrites. A second run returns 0."""


@dataclass(frozen=True)
class Step:
    """A pass with the number of rewrites that it has to make.

    Attributes:
        graph_pass: the pass.
        expected: rewrites that follow from the configuration of the model; None: any number.
        required: what another number means. True: a later step relies on the rewrite, so the build fails. False: an
            optimization; the graph is correct without it, so the difference is logged as a warning.
    """

    graph_pass: GraphPass
    expected: int | None
    required: bool = False

    @property
    def name(self) -> str:
        """Class name of the pass."""
        return type(self.graph_pass).__name__


CLEAN_UP = (Step(RemoveUnused(), expected=None), Step(ReadableNames(), expected=None))


def vision_steps(config: AlignConfig) -> tuple[Step, ...]:
    """Passes of the FP32 vision graph.

    There is one pool per squeeze-excite and one at the end. They are required: INT8 kernels and their scales exist for
    GlobalAveragePool and not for ReduceMean.
    """
    return (Step(GlobalPool(), expected=config.vision.num_blocks + 1, required=True), *CLEAN_UP)


def text_steps(config: AlignConfig, target: str = "any") -> tuple[Step, ...]:
    """Passes of the FP32 text graph; all of them are optimizations.

    There is one sum of embeddings, and one query-key product per layer. Splitting query, key and value into heads and
    joining the heads makes four reshapes per layer; the last layer's query is one row, and its two reshapes are traced
    with constant targets. The packed tower (target ``"cpu"``) has no reshape whose target could become constant.
    """
    layers = config.text.num_hidden_layers
    reshapes = () if target == "cpu" else (Step(ConstantReshape(), expected=4 * layers - 2),)
    return (
        Step(FoldTokenType(), expected=1),
        Step(FoldQueryScale(), expected=layers),
        *reshapes,
        *CLEAN_UP,
    )


def run_steps(model: ir.Model, steps: Sequence[Step]) -> dict[str, int]:
    """Runs `steps` in order; returns the number of rewrites by the name of the pass.

    Raises:
        BuildError: a required pass made another number of rewrites than expected.
    """
    counts: dict[str, int] = {}
    for step in steps:
        count = counts[step.name] = step.graph_pass(model)
        if step.expected is None or count == step.expected:
            continue
        difference = f"the pass {step.name} made {count} rewrites, expected {step.expected}"
        if step.required:
            raise BuildError(
                f"{difference}. See the graph that it ran on: align-export --dump-graph traced FILE. Either torch or "
                "onnxscript writes another graph than the tested versions (constraints.txt), or the pass or `expected` "
                "of its Step (graph/passes/order.py) is wrong for this model"
            )
        logger.warning("%s; the graph is correct without this optimization", difference)
    return counts
