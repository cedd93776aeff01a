"""Every format in which a checkpoint is saved gives the same model, tokenizer and bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from align_exporter.checkpoint.read_checkpoint import Checkpoint, read_checkpoint
from align_exporter.command import main
from align_exporter.export_options import ExportOptions
from align_reference.source import resolve
from align_runtime import Bundle, golden


def shard(folder: Path, pickled: bool) -> None:
    """The weights of `folder` in two files and an index."""
    weights = {key: tensor.clone() for key, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    weight_map = {}
    for number in (1, 2):
        name = f"{stem}-0000{number}-of-00002.{suffix}"
        part = {key: weights[key] for key in sorted(weights)[number - 1 :: 2]}
        if pickled:
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def nest_processor(folder: Path) -> None:
    """The format of transformers 5."""
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    values = {"image_processor": values, "processor_class": "AlignProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(values))


def keep_only_the_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def keep_only_the_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").unlink()


FORMS = {
    "sharded safetensors": [lambda folder: shard(folder, pickled=False)],
    "sharded pickles": [lambda folder: shard(folder, pickled=True)],
    "processor_config.json": [nest_processor, keep_only_the_tokenizer],
    "vocab.txt": [keep_only_the_vocabulary],
}


def read(folder: Path) -> Checkpoint:
    return read_checkpoint(resolve(str(folder)), ExportOptions(allow_pickle=True))


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_checkpoint(form: str, small_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_checkpoint, tmp_path / "checkpoint"))
    for change in FORMS[form]:
        change(folder)
    found, wanted = read(folder), read(small_checkpoint)
    assert (found.facts, found.preprocessing) == (wanted.facts, wanted.preprocessing)
    assert found.tokenizer == wanted.tokenizer
    state = found.model.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in wanted.model.state_dict().items())


def test_a_pickled_checkpoint_is_exported_only_with_allow_pickle(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sharded pickles and vocab.txt, the oldest format; its embeddings are those of the reference."""
    folder = Path(shutil.copytree(small_checkpoint, tmp_path / "checkpoint"))
    shard(folder, pickled=True)
    keep_only_the_vocabulary(folder)
    call = [str(folder), "-o", str(tmp_path / "bundle"), "--quiet"]
    assert main(call) == 2
    assert "pytorch_model.bin.index.json" in capsys.readouterr().err
    assert main([*call, "--allow-pickle"]) == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert set(bundle.manifest.provenance.files) >= {
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    }
    answers, model = golden.read(bundle), read(small_checkpoint).model
    with torch.inference_mode():
        features = model.get_text_features(
            torch.from_numpy(answers.input_ids.copy()), torch.from_numpy(answers.attention_mask.copy())
        )
    expected = torch.nn.functional.normalize(features).numpy()
    np.testing.assert_allclose(answers.text_embeds, expected, rtol=0, atol=1e-6)
