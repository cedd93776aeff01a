"""Trains an ALIGN on drawn scenes and handwritten digits and writes it as a Hugging Face folder.

    PYTHONPATH=reference:runtime python -m training.train --preset tiny --seed 1 --output reference/align-tiny

The same seed, number of threads and torch version give the same weights, as far as torch's kernels are deterministic.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from align_reference.activations import ACTIVATIONS
from align_reference.model import AlignModel
from align_reference.vision import Depthwise, Expansion, SqueezeExcite, Stem
from training.captions import random_caption
from training.folder import encode, read_folder, write_folder
from training.objective import describes, shared_contrastive_loss
from training.pools import Pool, pixel_values, training_pool
from training.presets import PRESETS, Phase, Preset
from training.vocabulary import build_tokenizer

WARM_UP = 0.06  # of the steps
WEIGHT_DECAY = 0.05
MAX_GRADIENT_NORM = 1.0
TEMPERATURES = (0.03, 1.0)  # below, single pairs dominate the loss and logits exceed the range of half precision
STATISTICS_BATCHES = 64
PROGRESS_EVERY = 50


def initialise(model: AlignModel) -> None:
    """He for convolutions, 1/√width for dense layers, normal(0, 0.02) for embeddings; torch's defaults for norms.

    BERT's 0.02 for dense layers suits a width of 768; at 128 the first token hardly depends on the others.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


def fuse_swish(model: AlignModel) -> None:
    """Replaces the reference's x·sigmoid(x) with torch's fused kernel: the same function, one sixth faster."""
    swish = ACTIVATIONS["swish"]
    for module in model.modules():
        if isinstance(module, Stem | Expansion | Depthwise | SqueezeExcite) and module.activation is swish:
            module.activation = F.silu


def optimiser(model: AlignModel, learning_rate: float) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices and kernels; none for scales, biases and the temperature."""
    parameters = [parameter for name, parameter in model.named_parameters() if ".pooler." not in name]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then cosine decay to 0."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def begin(preset: Preset, seed: int) -> tuple[AlignModel, Tokenizer]:
    """The initialized model, and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = AlignModel(preset.config(tokenizer.get_vocab_size()))
    initialise(model)
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters", flush=True)
    return model, tokenizer


def train(preset: Preset, seed: int, workers: int) -> tuple[AlignModel, Tokenizer]:
    """The trained model in evaluation mode, and its tokenizer."""
    started = time.monotonic()
    model, tokenizer = begin(preset, seed)
    for number in range(len(preset.phases)):
        run_phase(model, tokenizer, preset, number, seed, workers)
    print(f"trained in {time.monotonic() - started:.0f} s", flush=True)
    return model.eval(), tokenizer


def train_one_phase(preset: Preset, number: int, seed: int, workers: int, before: Path) -> tuple[AlignModel, Tokenizer]:
    """Runs phase `number` alone; the folder `before` holds the result of the phases before it.

    Gives the same weights as `train`, because a phase has its own images, schedule and optimiser state.
    """
    model, tokenizer = read_folder(before)[:2] if number else begin(preset, seed)
    run_phase(model, tokenizer, preset, number, seed, workers)
    return model.eval(), tokenizer


def run_phase(model: AlignModel, tokenizer: Tokenizer, preset: Preset, number: int, seed: int, workers: int) -> None:
    """Draws the images of phase `number`, trains `model` on them and sets its batch-norm statistics."""
    started, phase = time.monotonic(), preset.phases[number]
    first = sum(earlier.pool_size for earlier in preset.phases[:number])  # no image occurs in two phases
    indices = range(first, first + phase.pool_size)
    pool = training_pool(seed, indices, phase.digit_share, preset.image, workers)
    print(f"phase {number + 1}: {len(pool.scenes)} images drawn in {time.monotonic() - started:.0f} s", flush=True)
    fuse_swish(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from torch's stubs
    _take_steps(model, tokenizer, pool, preset.batch_size, phase, np.random.default_rng([seed, 2 + number]))
    recalibrate(model, pool, preset.batch_size)


def _take_steps(
    model: AlignModel, tokenizer: Tokenizer, pool: Pool, batch_size: int, phase: Phase, rng: np.random.Generator
) -> None:
    shown = torch.tensor([scene.codes() for scene in pool.scenes])
    adam = optimiser(model, phase.learning_rate)
    order = np.empty(0, dtype=np.int64)
    started, progress = time.monotonic(), []
    model.train()
    for step in range(phase.steps):
        if len(order) < batch_size:
            order = rng.permutation(len(pool.scenes))
        rows, order = order[:batch_size], order[batch_size:]
        captions = [random_caption(pool.scenes[row], rng) for row in rows]
        matches = describes(torch.tensor([caption.codes for caption in captions]), shown[rows])
        for group in adam.param_groups:
            group["lr"] = phase.learning_rate * schedule(step, phase.steps)
        input_ids, attention_mask = encode(tokenizer, [caption.text for caption in captions])
        progress.append(_step(model, adam, (input_ids, attention_mask, pixel_values(pool.pixels[rows])), matches))
        if (step + 1) % PROGRESS_EVERY == 0 or step + 1 == phase.steps:
            loss, hits = np.mean(progress, axis=0)
            print(
                f"step {step + 1}/{phase.steps}  loss {loss:.4f}  text → image top-1 {hits:.3f}  "
                f"temperature {model.temperature.item():.4f}  {time.monotonic() - started:.0f} s",
                flush=True,
            )
            progress = []


def _step(
    model: AlignModel, adam: torch.optim.AdamW, batch: tuple[Tensor, Tensor, Tensor], matches: Tensor
) -> tuple[float, float]:
    """One update. Returns the loss, and the share of captions that are true of their nearest image."""
    input_ids, attention_mask, pixels = batch
    logits = model(input_ids, pixels, attention_mask).logits_per_text
    loss = shared_contrastive_loss(logits, matches)
    adam.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    adam.step()
    with torch.no_grad():
        model.temperature.clamp_(*TEMPERATURES)
    nearest = logits.argmax(dim=1, keepdim=True)
    return loss.item(), matches.gather(1, nearest).float().mean().item()


@torch.no_grad()
def recalibrate(model: AlignModel, pool: Pool, batch_size: int) -> None:
    """Sets the batch-norm statistics to their averages over the first training images; weights do not change."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    model.train()
    for start in range(0, min(len(pool.pixels), STATISTICS_BATCHES * batch_size), batch_size):
        model.get_image_features(pixel_values(pool.pixels[start : start + batch_size]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains an ALIGN model on drawn scenes and handwritten digits.")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    parser.add_argument("--steps", type=int, help="steps of each phase, instead of those of the preset")
    parser.add_argument("--phase", type=int, help="run only this phase (1, 2 …), continuing from the folder --output")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch, and processes that draw images")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    # A slow debugging aid of deterministic mode.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    preset = PRESETS[arguments.preset]
    if arguments.steps is not None:
        preset = replace(preset, phases=tuple(replace(phase, steps=arguments.steps) for phase in preset.phases))
    if arguments.phase is None:
        model, tokenizer = train(preset, arguments.seed, workers=arguments.threads)
    elif 1 <= arguments.phase <= len(preset.phases):
        model, tokenizer = train_one_phase(
            preset, arguments.phase - 1, arguments.seed, arguments.threads, arguments.output
        )
    else:
        parser.error(f"--phase is {arguments.phase}; expected 1 to {len(preset.phases)} for {arguments.preset}")
    write_folder(arguments.output, model, tokenizer, preset.image)


if __name__ == "__main__":
    main()
