"""The contrastive loss, with several matching captions per image.

Drawn data repeats itself: "a photo of a red circle" is true of many images of a batch. ALIGN's loss treats all pairs
off the diagonal as wrong. Here the target is shared evenly among all matching pairs, which gives the same loss if only
the diagonal matches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from align_reference.model import LABEL_SMOOTHING
from training.captions import UNSAID


def describes(said: Tensor, shown: Tensor) -> Tensor:
    """Which captions are true of which images, bool (captions, images).

    Args:
        said: int (captions, fields), codes of the captions; `UNSAID` for a field that a caption omits.
        shown: int (images, fields), codes of the scenes.
    """
    said, shown = said[:, None], shown[None]  # (captions, 1, fields), (1, images, fields)
    return ((said == shown) | (said == UNSAID)).all(dim=-1)


def shared_contrastive_loss(logits_per_text: Tensor, matches: Tensor) -> Tensor:
    """Mean of the cross entropies of both directions, label smoothing as in `align_reference.model.contrastive_loss`.

    Args:
        logits_per_text: float (n, n).
        matches: bool (n, n), true at least on the diagonal.
    """
    losses = [
        F.cross_entropy(logits, right / right.sum(dim=1, keepdim=True), label_smoothing=LABEL_SMOOTHING)
        for logits, right in ((logits_per_text, matches.float()), (logits_per_text.T, matches.T.float()))
    ]
    return torch.stack(losses).mean()
