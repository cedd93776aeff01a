"""Captions from templates. A caption describes some attributes of its image; `Caption.codes` holds which ones.

The templates are training data: align-tiny was trained on these words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.scenes import DIGITS, FIELDS, Scene

LABEL_TEMPLATE = "a photo of a {}"  # for zero-shot classification
UNSAID = -1

# Share and template. `{thing}` is the colour and the subject, `{subject}` the subject alone.
TEMPLATES: tuple[tuple[float, str], ...] = (
    (0.14, "a photo of a {thing}"),
    (0.08, "a photo of a {subject}"),
    (0.03, "{subject}"),
    (0.03, "{thing}"),
    (0.03, "a {thing}"),
    (0.05, "a {size} {thing}"),
    (0.05, "a photo of a {size} {thing}"),
    (0.05, "a {thing} on a {background} background"),
    (0.05, "a photo of a {thing} on a {texture} background"),
    (0.05, "a photo of a {thing} {place}"),
    (0.05, "a {size} {thing} {place}"),
    (0.04, "a drawing of a {thing} on a {texture} {background} background"),
    (0.05, "a picture of a {size} {subject} {place} on a {background} background"),
    (0.08, "a {size} {thing} on a {background} background {place}"),
    (0.08, "a {size} {thing} {place} on a {texture} {background} background"),
    (0.14, "a photo of a {size} {thing} on a {texture} {background} background {place}"),
)
FULL_TEMPLATE = TEMPLATES[-1][1]

DIGIT_NAMES = ("handwritten {word}", "handwritten {figure}", "digit {word}", "number {word}", "number {figure}")
DIGIT_SHARES = (0.4, 0.15, 0.15, 0.15, 0.15)


@dataclass(frozen=True)
class Caption:
    """A text, and for each field of a scene the index of the word that the text uses, or `UNSAID`."""

    text: str
    codes: tuple[int, ...]


def label(subject: str, colour: str | None = None) -> str:
    """The class name for zero-shot classification, e.g. "red circle" or "handwritten three"."""
    name = f"handwritten {subject}" if subject in DIGITS else subject
    return name if colour is None else f"{colour} {name}"


def full_caption(scene: Scene) -> str:
    """The caption that describes every attribute; only equal scenes have the same one."""
    return _fill(FULL_TEMPLATE, scene, label(scene.subject))


def random_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """A random caption that is true of `scene`."""
    template = TEMPLATES[int(rng.choice(len(TEMPLATES), p=_SHARES))][1]
    subject = _digit_name(scene.subject, rng) if scene.is_digit else scene.subject
    said = _SAID[template]
    codes = tuple(code if field in said else UNSAID for field, code in zip(FIELDS, scene.codes(), strict=True))
    return Caption(_fill(template, scene, subject), codes)


def _digit_name(word: str, rng: np.random.Generator) -> str:
    name = DIGIT_NAMES[int(rng.choice(len(DIGIT_NAMES), p=DIGIT_SHARES))]
    return name.format(word=word, figure=DIGITS.index(word))


def _fill(template: str, scene: Scene, subject: str) -> str:
    return template.format(
        thing=f"{scene.colour} {subject}",
        subject=subject,
        size=scene.size,
        place="in the centre" if scene.position == "centre" else f"at the {scene.position}",
        background=scene.background,
        texture=scene.texture,
    )


def _fields_said(template: str) -> frozenset[str]:
    words = {"{thing}": ("subject", "colour"), "{place}": ("position",)}
    words |= {f"{{{field}}}": (field,) for field in FIELDS}
    return frozenset(field for placeholder, fields in words.items() if placeholder in template for field in fields)


_SHARES = tuple(share for share, _ in TEMPLATES)
_SAID = {template: _fields_said(template) for _, template in TEMPLATES}
