"""Scores of embeddings against embeddings: cosines, probabilities, and the checks of their arguments."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align_runtime.errors import ConfigurationError, InputError

DEFAULT_TEMPLATE = "a photo of a {}"


def checked_embeddings(name: str, values: ArrayLike, dim: int) -> NDArray[np.float32]:
    """`values` as float32 (n, dim). Messages of errors call them `name`.

    Raises:
        InputError: another shape, values that are not numbers, or NaN or infinite values.
    """
    try:
        embeds = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        kind = type(values).__name__
        raise InputError(f"{name} is a {kind} that cannot be converted to float32; pass embeddings") from None
    if embeds.ndim != 2 or embeds.shape[1] != dim:
        raise InputError(f"{name} has shape {embeds.shape}; expected (n, {dim})")
    if not np.isfinite(embeds).all():
        raise InputError(f"{name} contains NaN or infinite values; pass finite embeddings")
    return embeds


def cosine(images: ArrayLike, texts: ArrayLike, dim: int) -> NDArray[np.float32]:
    """Cosines float32 (n, m) of unit image embeddings (n, dim) with unit text embeddings (m, dim).

    Raises:
        InputError: as `checked_embeddings`.
    """
    rows, columns = checked_embeddings("images", images, dim), checked_embeddings("texts", texts, dim)
    return np.asarray(rows @ columns.T, dtype=np.float32)


def captions(labels: Iterable[str], template: str) -> list[str]:
    """`template` with each of `labels` at its ``{}``.

    Raises:
        ConfigurationError: there are no labels, a label is not a str, or the template has no ``{}``.
    """
    if not isinstance(template, str) or "{}" not in template:
        raise ConfigurationError(f"the template is {template!r}; put {{}} where the label goes")
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise ConfigurationError(f"labels is a {type(labels).__name__}; pass a list of labels")
    names = list(labels)
    if not names:
        raise ConfigurationError("labels is empty; pass at least one label")
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"a label is a {type(name).__name__} ({repr(name)[:80]}); pass a str")
    return [template.replace("{}", name) for name in names]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The softmax of each row of `logits` (n, m)."""
    scores = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return scores / scores.sum(axis=1, keepdims=True)
