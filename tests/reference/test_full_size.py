"""The published size, 172.1 M parameters with random weights: loaded from a file and compared with the oracle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from align_reference.checkpoint import load_model
from align_reference.model import AlignModel
from support.checkpoints import pixel_values, small_config, token_batch, write_checkpoint
from support.oracle import MAX_EMBEDDING_DIFFERENCE, distance, spread

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(full_size_checkpoint: Path) -> AlignModel:
    return load_model(full_size_checkpoint)


def test_parameters_are_those_of_the_published_model(model: AlignModel) -> None:
    def millions(module: torch.nn.Module) -> float:
        return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1)

    assert (millions(model), millions(model.vision_model), millions(model.text_model)) == (172.1, 62.1, 109.5)
    assert len(model.vision_model.encoder.blocks) == 55
    assert model.config.projection_dim == 640


@torch.inference_mode()
def test_embeddings_are_those_of_the_oracle(full_size_checkpoint: Path, model: AlignModel) -> None:
    oracle, report = transformers.AlignModel.from_pretrained(full_size_checkpoint, output_loading_info=True)
    assert not any(report.values()), report
    input_ids, attention_mask = token_batch(model.config, 3, 24, seed=1)
    images = pixel_values(3, 289, seed=1)  # not those that set the statistics
    ours = model(input_ids, images, attention_mask, return_loss=True)
    theirs = oracle(input_ids=input_ids, pixel_values=images, attention_mask=attention_mask, return_loss=True)
    found = distance(ours, theirs)
    assert found.within_tolerance(), found
    assert ours.loss is not None
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=0)
    assert min(spread(ours.image_embeds), spread(ours.text_embeds)) > 100 * MAX_EMBEDDING_DIFFERENCE


@torch.inference_mode()
def test_conditioning(model: AlignModel) -> None:
    """The random checkpoint is fit to judge a lossy variant: small disturbances stay small, different images differ."""
    image = pixel_values(1, 289, seed=1)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    images = torch.cat([image, image + 1e-3 * noise, pixel_values(2, 289, seed=2)])
    features = model.get_image_features(images)
    to_first = torch.nn.functional.cosine_similarity(features[1:], features[:1])
    assert to_first[0] > 0.9999
    assert to_first[1:].max() < 0.95


# VmHWM, because getrusage in a child starts at the size of its parent. The small model is loaded first because torch
# imports another 70 MB when it builds its first model on the meta device.
MEASURE = """
import json, sys
from pathlib import Path
from align_reference.checkpoint import load_model

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

load_model(Path(sys.argv[2]))
before = {name: memory(name) for name in ("VmHWM", "RssAnon")}
model = load_model(Path(sys.argv[1]))
print(json.dumps({name: memory(name) - value for name, value in before.items()}))
"""


def test_loading_takes_the_memory_of_the_weights_once(full_size_checkpoint: Path, tmp_path: Path) -> None:
    small = write_checkpoint(tmp_path / "small", small_config())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "reference"), str(ROOT / "runtime")))}
    command = [sys.executable, "-c", MEASURE, str(full_size_checkpoint), str(small)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    size = (full_size_checkpoint / "model.safetensors").stat().st_size
    # Every page is read once, to look for NaN, so the whole file may be resident, as mapped pages and not as a copy.
    assert measured["VmHWM"] < 1.05 * size  # measured 1.006
    assert measured["RssAnon"] < 0.02 * size  # measured 0.006
