"""Embeddings against embeddings: logits, and what is accepted as an embedding or a label."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align_runtime.errors import ConfigurationError, InputError

DEFAULT_TEMPLATE = "a photo of a {}"


def checked_embeddings(name: str, values: ArrayLike, dim: int) -> NDArray[np.float32]:
    """`values` as float32 (n, dim).

    Raises:
        InputError: another shape, no numbers, or NaN or infinite ones; `name` says which argument it was.
    """
    try:
        embeds = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        kind = type(values).__name__
        raise InputError(f"{name} is a {kind} of something else than numbers; pass embeddings") from None
    if embeds.ndim != 2 or embeds.shape[1] != dim:
        raise InputError(f"{name} has shape {embeds.shape}; (n, {dim}) is needed")
    if not np.isfinite(embeds).all():
        raise InputError(f"{name} holds NaN or infinite values; embeddings are finite")
    return embeds


def captions(labels: Iterable[str], template: str) -> list[str]:
    """`template` with each of `labels` at its ``{}``.

    Raises:
        ConfigurationError: no labels, a label that is no text, or a template without ``{}``.
    """
    if not isinstance(template, str) or "{}" not in template:
        raise ConfigurationError(f"the template is {template!r}; it needs {{}} where the label goes")
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise ConfigurationError(f"labels is a {type(labels).__name__}; give a list of labels")
    names = list(labels)
    if not names:
        raise ConfigurationError("there are no labels to choose from; give at least one")
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"a label cannot be a {type(name).__name__} ({name!r}); pass a str")
    return [template.replace("{}", name) for name in names]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows that sum to 1, of logits (n, m)."""
    scores = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return scores / scores.sum(axis=1, keepdims=True)
