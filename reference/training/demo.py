"""Draws the demo images of a folder: held out, at their original sizes, with captions and candidate labels.

PYTHONPATH=reference:runtime python -m training.demo reference/align-tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from training.captions import LABEL_TEMPLATE, full_caption, label
from training.pools import random_image

DEMO_SEED = 90_000_002
SUBJECTS = ("heart", "star", "circle", "crescent", "triangle", "three", "seven", "eight")
DISTRACTORS = ("red square", "white ring", "handwritten two", "handwritten nine")
JPEG_QUALITY = 92


def write_demo(folder: Path) -> None:
    """Writes ``demo/*.png``, ``demo/*.jpg`` and ``demo/captions.json`` into `folder`.

    The JSON object holds `template` and `labels` for classification, and for each image its `file`, its full `caption`
    and its `label`, one of `labels`. Every other image is a JPEG.
    """
    demo = folder / "demo"
    demo.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(DEMO_SEED)
    entries = []
    for index, subject in enumerate(SUBJECTS):
        image, scene = random_image(rng, subject, "test")
        name = label(subject) if scene.is_digit else label(subject, scene.colour)
        file = f"{name.replace(' ', '-')}.{'jpg' if index % 2 else 'png'}"
        if index % 2:
            image.save(demo / file, quality=JPEG_QUALITY)
        else:
            image.save(demo / file, optimize=True)
        entries.append({"file": file, "caption": full_caption(scene), "label": name})
    values = {
        "template": LABEL_TEMPLATE,
        "labels": [*(entry["label"] for entry in entries), *DISTRACTORS],
        "images": entries,
    }
    (demo / "captions.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the demo images of a folder.")
    parser.add_argument("folder", type=Path)
    write_demo(parser.parse_args().folder)


if __name__ == "__main__":
    main()
