"""Which passes run on which tower, as data, with the number of rewrites that the configuration implies."""

from __future__ import annotations

from align_exporter.passes import Step
from align_exporter.passes.global_pool import GlobalPool
from align_exporter.passes.names import ReadableNames
from align_exporter.passes.query_scale import FoldQueryScale
from align_exporter.passes.token_type import FoldTokenType
from align_exporter.passes.unused import RemoveUnused
from align_reference.config import AlignConfig

CLEAN_UP = (Step(RemoveUnused(), expected=None), Step(ReadableNames(), expected=None))


def vision_steps(config: AlignConfig) -> tuple[Step, ...]:
    """FP32 vision: one pool per squeeze-excite and one at the end."""
    return (Step(GlobalPool(), expected=config.vision.num_blocks + 1), *CLEAN_UP)


def text_steps(config: AlignConfig) -> tuple[Step, ...]:
    """FP32 text, padded or packed: one sum of embeddings, one product of queries and keys per layer."""
    return (
        Step(FoldTokenType(), expected=1),
        Step(FoldQueryScale(), expected=config.text.num_hidden_layers),
        *CLEAN_UP,
    )
