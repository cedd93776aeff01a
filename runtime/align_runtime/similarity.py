"""Scores of embeddings against embeddings: cosines, probabilities, and the checks of their arguments."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align_runtime.errors import BundleError, ConfigurationError, InputError

DEFAULT_TEMPLATE = "a photo of a {}"
LENGTH_TOLERANCE = 1e-2  # embeddings that were stored in FP16 or in 8 bits are a little longer or shorter


def checked_rows(name: str, values: ArrayLike, dim: int) -> NDArray[np.float32]:
    """`values` as float32 (n, dim). Messages of errors call them `name`.

    Raises:
        InputError: another shape, values that are not numbers, or a row that is not finite or not of unit length;
            `index` is that of the first such row.
    """
    try:
        given = np.asarray(values)
    except (TypeError, ValueError):
        given = np.empty(0, object)
    if given.dtype.kind not in "fiub":  # complex numbers would lose a part, texts and objects are none
        kind = type(values).__name__
        raise InputError(f"{name} is a {kind} that cannot be converted to float32; pass embeddings")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        embeds = given.astype(np.float32, copy=False)
    if embeds.ndim != 2 or embeds.shape[1] != dim:
        raise InputError(f"{name} has shape {embeds.shape}; expected (n, {dim})")
    # In float64, where no square of a float32 overflows.
    lengths = np.sqrt(np.einsum("ij,ij->i", embeds, embeds, dtype=np.float64))
    wrong = ~(np.abs(lengths - 1) <= LENGTH_TOLERANCE)  # also NaN
    if wrong.any():
        row = int(wrong.argmax())
        if not np.isfinite(lengths[row]):
            raise InputError(f"{name} contains NaN or infinite values in this row; pass finite embeddings", row)
        advice = "it has no direction" if lengths[row] == 0 else "divide each row by its length"
        raise InputError(f"{name} has a row of length {lengths[row]:.4g}; expected unit length, {advice}", row)
    return embeds


def cosine(images: ArrayLike, texts: ArrayLike, dim: int) -> NDArray[np.float32]:
    """Cosines float32 (n, m) of unit image embeddings (n, dim) with unit text embeddings (m, dim).

    Raises:
        InputError: as `checked_rows`.
    """
    rows, columns = checked_rows("images", images, dim), checked_rows("texts", texts, dim)
    return np.asarray(rows @ columns.T, dtype=np.float32)


def logits(images: ArrayLike, texts: ArrayLike, dim: int, temperature: float) -> NDArray[np.float32]:
    """Logits float32 (n, m): cosines divided by `temperature`.

    Raises:
        InputError: as `checked_rows`.
        BundleError: the temperature is so small that a logit is beyond float32.
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scaled = (cosine(images, texts, dim) / np.float64(temperature)).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise BundleError(
            f"the temperature {temperature:.4g} of this bundle gives logits beyond float32; export the checkpoint again"
        )
    return scaled


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
