"""The text tower: post-norm BERT. Module names are the state-dict keys of the published layout.

Shapes: B batch, S tokens, H hidden size, A attention heads, D head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_reference.activations import ACTIVATIONS
from align_reference.config import TextConfig


class TextEmbeddings(nn.Module):
    """Sum of word, token-type and position embeddings, normalised."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)  # (1, S)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        hidden = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        hidden = hidden + self.position_embeddings(position_ids)  # (B, S, H)
        return self.LayerNorm(hidden)


class SelfAttention(nn.Module):
    """Multi-head attention of `hidden` over `context`, which are the same tensor in an ordinary layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.num_heads, self.head_size)).transpose(1, 2)  # (B, A, S, D)

    def forward(self, hidden: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        query = self._heads(self.query(hidden))
        key = self._heads(self.key(context))
        value = self._heads(self.value(context))
        scores = query @ key.transpose(-1, -2) * self.head_size**-0.5 + bias  # (B, A, S, S)
        return (F.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(-2)  # (B, S, H)


class ResidualOutput(nn.Module):
    """Dense layer, residual, layer norm: the end of both halves of a layer."""

    def __init__(self, in_features: int, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(hidden) + residual)


class Attention(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = ResidualOutput(config.hidden_size, config)

    def forward(self, hidden: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        return self.output(self.self(hidden, context, bias), hidden)


class Intermediate(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        return self.activation(self.dense(hidden))


class TextLayer(nn.Module):
    """One transformer layer. `hidden` holds the rows to compute, `context` all the tokens that they attend to."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config.intermediate_size, config)

    def forward(self, hidden: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        hidden = self.attention(hidden, context, bias)
        return self.output(self.intermediate(hidden), hidden)


class TextEncoder(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        for layer in self.layer:
            hidden = layer(hidden, hidden, bias)
        return hidden


class TextPooler(nn.Module):
    """Dense and tanh over the first token. In every checkpoint, and not on the way to an embedding."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden[:, 0]))


class TextModel(nn.Module):
    """BERT.

    Takes `input_ids` int64 (B, S), `attention_mask` (B, S) of 1 for tokens and 0 for padding (all 1 when absent),
    `token_type_ids` int64 (B, S) (0), `position_ids` int64 (B, S) or (1, S) (0 … S−1).
    Returns the last hidden state, (B, S, H). `pooler` is there because checkpoints hold its weights.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = TextEncoder(config)
        self.pooler = TextPooler(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden = self.embeddings(input_ids, token_type_ids, position_ids)
        return self.encoder(hidden, attention_bias(attention_mask, hidden.dtype))


def attention_bias(attention_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Addend to the attention scores, (B, 1, 1, S): 0 where a token may be attended to, the lowest finite number else.

    Finite rather than −inf, so that a row without any token gives the mean of the values and not NaN.
    """
    lowest = torch.finfo(dtype).min
    return (1.0 - attention_mask[:, None, None, :].to(dtype)) * lowest
