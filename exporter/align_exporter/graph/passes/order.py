"""Which passes run on which tower, in which order, and how many rewrites each of them makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from align_exporter.graph.passes.clean_up import ReadableNames, RemoveUnused
from align_exporter.graph.passes.constant_reshape import ConstantReshape
from align_exporter.graph.passes.global_pool import GlobalPool
from align_exporter.graph.passes.query_scale import FoldQueryScale
from align_exporter.graph.passes.token_type import FoldTokenType
from align_exporter.graph.passes.unfused_sum import UnfusedSum
from align_reference.config import AlignConfig
from align_runtime.errors import BuildError


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
            optimization; the graph is correct without it, so the difference is reported.
    """

    graph_pass: GraphPass
    expected: int | None
    required: bool = False

    @property
    def name(self) -> str:
        """Class name of the pass."""
        return type(self.graph_pass).__name__


@dataclass(frozen=True)
class PassCount:
    """The rewrites that a pass made; `expected` None: any number is right."""

    name: str
    rewrites: int
    expected: int | None

    @property
    def is_expected(self) -> bool:
        return self.expected is None or self.rewrites == self.expected

    def __str__(self) -> str:
        return f"the pass {self.name} made {self.rewrites} rewrites, expected {self.expected}"


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
    with constant targets. The packed tower (target ``"cpu"``) has no reshape whose target could become constant. Sums
    are read by two LayerNormalizations and mostly one GELU per layer, and by the LayerNormalization of the embeddings.
    """
    layers = config.text.num_hidden_layers
    per_layer = 3 if config.text.hidden_act == "gelu" else 2
    for_cpu = (Step(UnfusedSum(), expected=per_layer * layers + 1),)
    for_others = (Step(ConstantReshape(), expected=4 * layers - 2),)
    return (
        Step(FoldTokenType(), expected=1),
        Step(FoldQueryScale(), expected=layers),
        *(for_cpu if target == "cpu" else for_others),
        *CLEAN_UP,
    )


def run_steps(model: ir.Model, steps: Sequence[Step]) -> tuple[PassCount, ...]:
    """Runs `steps` in order; returns what each of them did.

    Raises:
        BuildError: a required pass made another number of rewrites than expected.
    """
    return tuple(_run(model, step) for step in steps)


def _run(model: ir.Model, step: Step) -> PassCount:
    count = PassCount(step.name, step.graph_pass(model), step.expected)
    if step.required and not count.is_expected:
        raise BuildError(
            f"{count}. See the graph that it ran on: align-export --dump-graph traced FILE. Either torch or "
            "onnxscript writes another graph than the tested versions (constraints.txt), or the pass or `expected` "
            "of its Step (graph/passes/order.py) is wrong for this model"
        )
    return count
