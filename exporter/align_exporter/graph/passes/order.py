"""Which passes run on which tower, as data, with the number of rewrites that the configuration implies."""

from __future__ import annotations

from align_exporter.graph.passes import Step
from align_exporter.graph.passes.constant_reshape import ConstantReshape
from align_exporter.graph.passes.global_pool import GlobalPool
from align_exporter.graph.passes.names import ReadableNames
from align_exporter.graph.passes.query_scale import FoldQueryScale
from align_exporter.graph.passes.token_type import FoldTokenType
from align_exporter.graph.passes.unused import RemoveUnused
from align_reference.config import AlignConfig

CLEAN_UP = (Step(RemoveUnused(), expected=None), Step(ReadableNames(), expected=None))


def vision_steps(config: AlignConfig) -> tuple[Step, ...]:
    """FP32 vision: one pool per squeeze-excite and one at the end."""
    return (Step(GlobalPool(), expected=config.vision.num_blocks + 1), *CLEAN_UP)


def text_steps(config: AlignConfig, target: str = "any") -> tuple[Step, ...]:
    """FP32 text: one sum of embeddings, one product of queries and keys per layer.

    Heads of query, key and value, and back, make four reshapes per layer. The last layer's query is one row, whose two
    are constant as they are traced. The packed tower (target ``"cpu"``) has none that could become so.
    """
    layers = config.text.num_hidden_layers
    reshapes = () if target == "cpu" else (Step(ConstantReshape(), expected=4 * layers - 2),)
    return (Step(FoldTokenType(), expected=1), Step(FoldQueryScale(), expected=layers), *reshapes, *CLEAN_UP)
