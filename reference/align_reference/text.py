"""The text tower: post-norm BERT. Module names are the keys of the published state dict.

Shapes: B batch, S tokens, H hidden size, A attention heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_reference.activations import ACTIVATIONS
from align_reference.config import TextConfig
from align_runtime.errors import InputError


@dataclass(frozen=True)
class TextOutput:
    """Result of `TextModel`, with the field names of transformers.

    Attributes:
        last_hidden_state: float (B, S, H), output of the last layer.
        pooler_output: float (B, H), tanh of a dense layer over the first token; None in a model without a pooler.
            The embedding does not use it.
        hidden_states: the embeddings and the output of each layer, each (B, S, H); None unless requested.
        attentions: attention weights of each layer, each (B, A, S, S), rows sum to 1; None unless requested.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class TextEmbeddings(nn.Module):
    """Sum of word, token-type and position embeddings, followed by layer norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        if input_ids is not None and inputs_embeds is not None:
            raise InputError("input_ids and inputs_embeds were both given; give one of them")
        tokens = inputs_embeds if input_ids is None else input_ids  # (B, S, H) or (B, S)
        if tokens is None:
            raise InputError("neither input_ids nor inputs_embeds was given; give one of them")
        if token_type_ids is None:
            token_type_ids = torch.zeros(tokens.shape[:2], dtype=torch.int64, device=tokens.device)
        words = self.word_embeddings(tokens) if inputs_embeds is None else inputs_embeds
        hidden = words + self.token_type_embeddings(token_type_ids)
        if position_ids is None:  # the first S rows: a graph of a lookup would count on the CPU, between GPU kernels
            positions = self.position_embeddings.weight[: tokens.shape[1]]  # (S, H)
        else:
            positions = self.position_embeddings(position_ids)  # (B, S, H)
        hidden = hidden + positions
        return self.LayerNorm(hidden)


class SelfAttention(nn.Module):
    """Multi-head attention from `hidden` (queries) to `context` (keys and values); usually both are the same tensor."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        query = self._heads(self.query(hidden))
        key = self._heads(self.key(context))
        value = self._heads(self.value(context))
        return (self._softmax(query, key, bias) @ value).transpose(1, 2).flatten(-2)  # (B, S, H)

    def weights(self, hidden: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """The attention weights that `forward` uses, (B, A, S, S). Computed a second time, for inspection only."""
        return self._softmax(self._heads(self.query(hidden)), self._heads(self.key(context)), bias)

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.num_heads, self.head_size)).transpose(1, 2)  # (B, A, S, D)

    def _softmax(self, query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
        scores = query @ key.transpose(-1, -2) * self.head_size**-0.5 + bias  # (B, A, S, S)
        return F.softmax(scores, dim=-1)


class ResidualOutput(nn.Module):
    """Dense layer, residual connection, layer norm: the end of both halves of a layer."""

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
    """One transformer layer. `hidden` holds the tokens to compute, `context` all the tokens that they attend to."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config.intermediate_size, config)

    def forward(self, hidden: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        hidden = self.attention(hidden, context, bias)
        return self.output(self.intermediate(hidden), hidden)


class TextEncoder(nn.Module):
    """The layers, which `TextModel.forward` runs through."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))


class TextPooler(nn.Module):
    """Dense layer and tanh over the first token. Checkpoints hold it; the embedding does not use it."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden[:, 0]))  # (B, H)


class TextModel(nn.Module):
    """BERT.

    `pooler` may be None: `load_model` sets it so for a checkpoint without the pooler's weights.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = TextEncoder(config)
        self.pooler: TextPooler | None = TextPooler(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> TextOutput:
        """Runs the tower over a batch of texts.

        Args:
            input_ids: int64 (B, S).
            attention_mask: (B, S), 1 for tokens and 0 for padding; default all 1.
            token_type_ids: int64 (B, S); default 0.
            position_ids: int64 (B, S) or (1, S); default 0 … S−1.
            inputs_embeds: float (B, S, H), word embeddings in place of `input_ids`.
            output_hidden_states, output_attentions: whether to return them.

        Raises:
            InputError: both or neither of `input_ids` and `inputs_embeds` were given.
        """
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], dtype=torch.int64, device=hidden.device)
        bias = attention_bias(attention_mask, hidden.dtype)
        hidden_states = [hidden] if output_hidden_states else None
        attentions: list[Tensor] | None = [] if output_attentions else None
        for layer in cast(Iterable[TextLayer], self.encoder.layer):
            if attentions is not None:
                attentions.append(layer.attention.self.weights(hidden, hidden, bias))
            hidden = layer(hidden, hidden, bias)  # (B, S, H)
            if hidden_states is not None:
                hidden_states.append(hidden)
        return TextOutput(
            last_hidden_state=hidden,
            pooler_output=None if self.pooler is None else self.pooler(hidden),
            hidden_states=None if hidden_states is None else tuple(hidden_states),
            attentions=None if attentions is None else tuple(attentions),
        )


def attention_bias(attention_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Addend to the attention scores, (B, 1, 1, S): 0 for tokens, the lowest finite number for padding.

    Finite rather than −inf, so that a row without any token gives the mean of the values and not NaN.
    """
    lowest = torch.finfo(dtype).min
    return (1.0 - attention_mask[:, None, None, :].to(dtype)) * lowest
