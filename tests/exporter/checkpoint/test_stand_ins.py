"""The tokenizer and preprocessing that stand in where a folder has only a ``config.json``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_exporter.checkpoint import stand_ins
from align_exporter.checkpoint.read_checkpoint import read_preprocessing, read_tokenizer
from align_reference.config import VisionConfig
from align_runtime.errors import ConfigurationError
from align_runtime.tokenizer import Tokenizer
from support.checkpoints import write_processor


@pytest.mark.parametrize("size", [5, 40, 300, 30522, 100_000])
def test_the_vocabulary_has_the_size_asked_for(size: int, tmp_path: Path) -> None:
    vocabulary = stand_ins.vocabulary(size)
    assert sorted(vocabulary.values()) == list(range(size))
    assets = read_tokenizer(tmp_path, stand_in=vocabulary)
    assert (assets.vocab_size, assets.pad_token_id, assets.max_length) == (size, 0, None)
    assert assets == read_tokenizer(tmp_path, stand_in=stand_ins.vocabulary(size))


def test_no_more_entries_than_texts_can_give() -> None:
    assert len(stand_ins.vocabulary(1 << 24)) == 1 << 18


def test_too_few_entries() -> None:
    with pytest.raises(ConfigurationError, match=r"vocab_size is 4; .* from 5 entries on"):
        stand_ins.vocabulary(4)


def test_words_take_few_tokens_and_none_is_unknown(tmp_path: Path) -> None:
    assets = read_tokenizer(tmp_path, stand_in=stand_ins.vocabulary(30522))
    (tmp_path / "tokenizer.json").write_text(assets.json, encoding="utf-8")
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json", 64, 0)
    (row,) = tokenizer.encode(["a photo of a cat on 2 tables"])
    names = {identifier: token for token, identifier in stand_ins.vocabulary(30522).items()}
    pieces = [names[identifier] for identifier in row.tolist()]
    assert pieces == ["[CLS]", "a", "pho", "##to", "of", "a", "cat", "on", "2", "tab", "##les", "[SEP]"]


def test_a_configuration_beside_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 32, "do_lower_case": False}))
    assets = read_tokenizer(tmp_path, stand_in=stand_ins.vocabulary(300))
    assert assets.max_length == 32
    assert json.loads(assets.json)["normalizer"]["lowercase"] is False


@pytest.mark.parametrize("size", [289, 65, (224, 128)])
def test_the_preprocessing_is_that_of_the_published_checkpoint(size: int | tuple[int, ...], tmp_path: Path) -> None:
    write_processor(tmp_path, size)
    assert stand_ins.preprocessing(VisionConfig(image_size=size)) == read_preprocessing(tmp_path)
