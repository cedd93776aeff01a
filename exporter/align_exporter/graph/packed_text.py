"""The text tower without padding, for ONNX Runtime's CPU kernels: what is done token by token is done for tokens only.

Rows of a batch have different lengths, and a dense layer over a padded batch spends most of its time on padding. Here
the real tokens of all rows stand one after the other, (1, T, H), through embeddings, dense layers, layer norms and
activations. Only attention's two products need a rectangle: there the heads are gathered into (B, A, L, D), where L is
the longest row's number of tokens, and back. These gathers take the place of the transposes that the plain tower needs
to bring heads forward, so they cost nothing where there is no padding.

T and L depend on the values of the mask, so shapes do too: CUDA graphs and TensorRT take the plain `TextTower`.

A module and not a graph pass, because all of the graph's middle changes its shape: written as a forward function it is
readable, traced like the other towers, and its weights come out with the names and layouts of the plain graph, so both
graphs can share one file of weights. The last layer computes the first row of each text alone, as in `TextTower`.

Shapes: B batch, S sequence of the caller, T tokens of all rows, L tokens of the longest row, A heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_reference.model import AlignModel, unit_length
from align_reference.text import SelfAttention, TextEmbeddings, TextLayer


class PackedTextTower(nn.Module):
    """`input_ids`, `attention_mask` int64 (B, S) → `text_embeds` float32 (B, dim), unit length.

    The mask may have any pattern of 0 and 1; results are those of `TextTower`, up to the order of sums.
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
    """Where the tokens of a batch are.

    Attributes:
        places: int64 (T,), where each packed token is in the caller's flattened (B, S).
        columns: int64 (T,), its position in its row.
        starts: int64 (B,), the packed place of each row's first token, its position 0.
        padded: int64 (B, A, L), for every place of the rectangle the head of a packed token, as a row of (T·A, D).
        packed: int64 (T, A), for every head of a packed token its place in the rectangle, as a row of (B·A·L, D).
        bias: float32 (B, 1, 1, L), addend to the attention scores.
    """

    places: Tensor
    columns: Tensor
    starts: Tensor
    padded: Tensor
    packed: Tensor
    bias: Tensor


def pack(attention_mask: Tensor, num_heads: int) -> Packing:
    """Finds the tokens in `attention_mask`, int64 (B, S).

    Kept are all tokens that the mask names, position 0 of every row, which is the row of the embedding whether it may
    be attended to or not, and all of a row without any token, over which attention is the plain mean.
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
    # Slots past a row's end repeat its last token: finite values, of which the bias leaves nothing.
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
    """What follows the heads in a layer, token by token."""
    hidden = layer.attention.output(context, hidden)
    return layer.output(layer.intermediate(hidden), hidden)


def _attend(attention: SelfAttention, hidden: Tensor, packing: Packing) -> Tensor:
    """Heads of all tokens of `hidden` (1, T, H) over the tokens of their rows, (1, T, H)."""
    query = _to_rectangle(attention.query(hidden), packing, attention.head_size)
    heads = _weighted_values(attention, query, hidden, packing)  # (B, A, L, D)
    tokens = _gather(heads.reshape(-1, attention.head_size), packing.packed)  # (T, A, D)
    return tokens.reshape(1, -1, attention.num_heads * attention.head_size)


def _attend_first(attention: SelfAttention, first: Tensor, hidden: Tensor, packing: Packing) -> Tensor:
    """Heads of the first tokens `first` (1, B, H) over the tokens of their rows in `hidden` (1, T, H): (1, B, H)."""
    query = attention.query(first).reshape(-1, attention.num_heads, 1, attention.head_size)  # (B, A, 1, D)
    heads = _weighted_values(attention, query, hidden, packing)  # (B, A, 1, D)
    return heads.reshape(1, -1, attention.num_heads * attention.head_size)


def _weighted_values(attention: SelfAttention, query: Tensor, hidden: Tensor, packing: Packing) -> Tensor:
    key = _to_rectangle(attention.key(hidden), packing, attention.head_size)
    value = _to_rectangle(attention.value(hidden), packing, attention.head_size)
    scores = query @ key.transpose(-1, -2) * attention.head_size**-0.5 + packing.bias  # (B, A, L or 1, L)
    return F.softmax(scores, dim=-1) @ value


def _to_rectangle(tokens: Tensor, packing: Packing, head_size: int) -> Tensor:
    return _gather(tokens.reshape(-1, head_size), packing.padded)  # (B, A, L, D)


def _gather(rows: Tensor, indices: Tensor) -> Tensor:
    """`rows` (n, D) at `indices` (…): (…, D). `F.embedding` because it becomes one Gather."""
    return F.embedding(indices, rows)
