"""The towers as they are traced: from pixels or token ids to unit-length embeddings.

`PackedTextTower` is the text tower without padding, for ONNX Runtime's CPU kernels. The rows of a batch have different
lengths, and dense layers over a padded batch spend most of their time on padding. Here the real tokens of all rows are
packed one after the other, (1, T, H), for embeddings, dense layers, layer norms and activations. Only the two products
of attention need a padded batch: the heads are gathered into (B, A, L, D), where L is the number of tokens in the
longest row, and gathered back. These gathers replace the transposes of the plain tower around the heads, so they cost
nothing where there is no padding.

T and L depend on the values of the mask, so shapes are data-dependent. CUDA graphs and TensorRT do not support that and
use the plain `TextTower`.

It is a module and not a graph pass because it changes the shapes of most of the graph. A forward function is readable
and traced like the other towers. Its weights have the names and layouts of the plain graph, so both graphs share one
weight file.

Shapes: B batch, S sequence of the caller, T tokens of all rows, L tokens of the longest row, H hidden, A heads, D head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_reference.model import AlignModel, unit_length
from align_reference.text import SelfAttention, TextEmbeddings, TextLayer, attention_bias


class VisionTower(nn.Module):
    """`pixels` uint8 (B, H, W, 3) RGB → `image_embeds` float32 (B, dim), unit length, normalization included.

    Args:
        model: the reference.
        scale, offset: float64 (3,); per channel, a pixel is normalized to ``pixel · scale + offset``.
    """

    def __init__(self, model: AlignModel, scale: np.ndarray, offset: np.ndarray) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.scale = nn.Buffer(torch.tensor(scale, dtype=torch.float32).reshape(1, 3, 1, 1))
        self.offset = nn.Buffer(torch.tensor(offset, dtype=torch.float32).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        # The Cast comes first because TensorRT accepts a uint8 input only if a Cast reads it. For ONNX Runtime's CPU
        # kernels the order does not matter: both steps take 0.08 of 196 ms at batch 1 and 0.9 of 1750 ms at batch 8.
        values = pixels.to(torch.float32).permute(0, 3, 1, 2)
        return unit_length(self.vision_model(values * self.scale + self.offset).pooler_output)


class NormalizedVisionTower(nn.Module):
    """`pixel_values` float32 (B, 3, H, W), normalized by the caller → `image_embeds` float32 (B, dim), unit length."""

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.vision_model = model.vision_model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return unit_length(self.vision_model(pixel_values).pooler_output)


class TextTower(nn.Module):
    """`input_ids`, `attention_mask` int64 (B, S) → `text_embeds` float32 (B, dim), unit length.

    The embedding depends only on the first token of the last layer, so the last layer computes only that row; it still
    attends to all tokens. BERT's pooler is not used and not exported.
    """

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.text_model.embeddings(input_ids)
        bias = attention_bias(attention_mask)
        *layers, last = self.text_model.encoder.layer
        for layer in layers:
            hidden = layer(hidden, hidden, bias)
        first = last(hidden[:, :1], hidden, bias)  # (B, 1, H)
        return unit_length(self.text_projection(first[:, 0]))


class PackedTextTower(nn.Module):
    """`input_ids`, `attention_mask` int64 (B, S) → `text_embeds` float32 (B, dim), unit length.

    The mask may have any pattern of 0 and 1. Results equal those of `TextTower` up to the order of summation.
    """

    def __init__(self, model: AlignModel) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        packing = pack(attention_mask, self.text_model.config.num_attention_heads)
        hidden = _embed(self.text_model.embeddings, input_ids, packing)
        *layers, last = cast(Sequence[TextLayer], self.text_model.encoder.layer)
        for layer in layers:
            hidden = _layer(layer, hidden, _attend(layer.attention.self, hidden, packing))
        first = hidden.index_select(1, packing.starts)  # (1, B, H)
        first = _layer(last, first, _attend_first(last.attention.self, first, hidden, packing))
        return unit_length(self.text_projection(first[0]))


@dataclass(frozen=True)
class Packing:
    """Indices between the padded batch and the packed tokens.

    Attributes:
        places: int64 (T,), index of each packed token in the flattened input (B·S).
        columns: int64 (T,), its position in its row.
        starts: int64 (B,), packed index of the first token of each row, position 0.
        padded: int64 (B, A, L), row of the packed heads (T·A, D) for every entry of the padded heads.
        packed: int64 (T, A), row of the padded heads (B·A·L, D) for every head of a packed token.
        bias: float32 (B, 1, 1, L), added to the attention scores.
    """

    places: Tensor
    columns: Tensor
    starts: Tensor
    padded: Tensor
    packed: Tensor
    bias: Tensor


def pack(attention_mask: Tensor, num_heads: int) -> Packing:
    """Computes the indices for `attention_mask`, int64 (B, S).

    Tokens where the mask is 1 are kept. So are position 0 of every row, which becomes the embedding even if it is
    masked, and all of a row without any token, over which attention is the plain mean.
    """
    lowest = torch.finfo(torch.float32).min
    positions = torch.arange(attention_mask.shape[1])  # (S,)
    named = attention_mask != 0
    keep = named | (named.sum(1, keepdim=True) == 0) | (positions == 0)  # (B, S)
    rows, columns = torch.nonzero(keep).unbind(1)
    places = rows * attention_mask.shape[1] + columns
    counts = keep.sum(1)  # (B,)
    ends = counts.cumsum(0)
    starts = ends - counts
    slots = torch.nonzero(positions < counts.max()).squeeze(1)  # (L,): 0 … L−1
    inside = slots < counts[:, None]
    # Slots past the end of a row repeat its last token: finite values that the bias masks out.
    tokens = torch.minimum(starts[:, None] + slots, ends[:, None] - 1)  # (B, L)
    addend = (1.0 - attention_mask.flatten().index_select(0, places).to(torch.float32)) * lowest  # (T,)
    bias = torch.where(inside, addend.index_select(0, tokens.flatten()).view_as(tokens), lowest)  # (B, L)
    slot = torch.arange(rows.shape[0]) - starts.index_select(0, rows)  # (T,)
    heads = torch.arange(num_heads)
    return Packing(
        places=places,
        columns=columns,
        starts=starts,
        padded=tokens[:, None, :] * num_heads + heads[:, None],
        packed=(rows[:, None] * num_heads + heads) * slots.shape[0] + slot[:, None],
        bias=bias[:, None, None, :],
    )


def _embed(embeddings: TextEmbeddings, input_ids: Tensor, packing: Packing) -> Tensor:
    token_ids = input_ids.flatten().index_select(0, packing.places).unsqueeze(0)  # (1, T)
    return embeddings(token_ids, position_ids=packing.columns.unsqueeze(0))  # (1, T, H)


def _layer(layer: TextLayer, hidden: Tensor, context: Tensor) -> Tensor:
    """The rest of a layer behind the attention heads, for packed tokens."""
    hidden = layer.attention.output(context, hidden)
    return layer.output(layer.intermediate(hidden), hidden)


def _attend(attention: SelfAttention, hidden: Tensor, packing: Packing) -> Tensor:
    """Attention of all tokens in `hidden` (1, T, H) to the tokens of their rows: (1, T, H)."""
    query = _pad_heads(attention.query(hidden), packing, attention.head_size)
    heads = _weighted_values(attention, query, hidden, packing)  # (B, A, L, D)
    tokens = _gather(heads.reshape(-1, attention.head_size), packing.packed)  # (T, A, D)
    return tokens.reshape(1, -1, attention.num_heads * attention.head_size)


def _attend_first(attention: SelfAttention, first: Tensor, hidden: Tensor, packing: Packing) -> Tensor:
    """Attention of the first tokens `first` (1, B, H) to the tokens of their rows in `hidden` (1, T, H): (1, B, H)."""
    query = attention.query(first).reshape(-1, attention.num_heads, 1, attention.head_size)  # (B, A, 1, D)
    heads = _weighted_values(attention, query, hidden, packing)  # (B, A, 1, D)
    return heads.reshape(1, -1, attention.num_heads * attention.head_size)


def _weighted_values(attention: SelfAttention, query: Tensor, hidden: Tensor, packing: Packing) -> Tensor:
    key = _pad_heads(attention.key(hidden), packing, attention.head_size)
    value = _pad_heads(attention.value(hidden), packing, attention.head_size)
    scores = query @ key.transpose(-1, -2) * attention.head_size**-0.5 + packing.bias  # (B, A, L or 1, L)
    return F.softmax(scores, dim=-1) @ value


def _pad_heads(tokens: Tensor, packing: Packing, head_size: int) -> Tensor:
    return _gather(tokens.reshape(-1, head_size), packing.padded)  # (B, A, L, D)


def _gather(rows: Tensor, indices: Tensor) -> Tensor:
    """`rows` (n, D) at `indices` (…): (…, D). `F.embedding` is exported as one Gather."""
    return F.embedding(indices, rows)
