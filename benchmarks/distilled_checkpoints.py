"""A trained network with ALIGN's own activation: EfficientNet-Lite1 with swish in place of ReLU6, distilled.

Its features follow those of the original on crops of the photographs that calibration may see, block by block: the loss
is the square error of each block's output over the variance of the original's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from align_reference.vision import VisionModel

STEPS, BATCH, SIZE = 250, 8, 128
RATE = 1e-3  # of Adam, at first; it falls to 0 as a cosine


def distil(student: VisionModel, teacher: VisionModel, crops: Iterator[Image.Image], steps: int = STEPS) -> float:
    """Trains `student` in place, so that its features follow those of `teacher`; returns the last loss.

    Args:
        crops: images to train on, `BATCH` for each step.
    """
    # Gates are 1 in both.
    parameters = [value for name, value in student.named_parameters() if "squeeze_excite" not in name]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    student.train()
    loss = torch.tensor(torch.nan)
    for _ in range(steps):
        pixels = _batch(crops)
        with torch.no_grad():
            exact = teacher(pixels, output_hidden_states=True).hidden_states
        found = student(pixels, output_hidden_states=True).hidden_states
        errors = [_relative_error(*pair) for pair in zip(found[1:], exact[1:], strict=True)]  # without the stem
        loss = torch.stack(errors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    student.eval()
    return float(loss.detach())


def _relative_error(found: Tensor, exact: Tensor) -> Tensor:
    return ((found - exact) ** 2).mean() / exact.var()


def _batch(crops: Iterator[Image.Image]) -> Tensor:
    """The next images, float32 (BATCH, 3, SIZE, SIZE), normalized as the checkpoint's processor does."""
    rows = [np.asarray(next(crops).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for _ in range(BATCH)]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 127.5 - 1
