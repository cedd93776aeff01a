"""Tokenizer files that are missing, malformed, not supported or contradictory: the error names file and key."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import BertTokenizer

from align_exporter.checkpoint import tokenizer_files
from align_exporter.checkpoint.read_checkpoint import read_tokenizer
from align_runtime.errors import CheckpointError, ConfigurationError
from support.checkpoint_folder import NEW, PLAIN, TOKEN, WORDS, Edit, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def refuse(folder: Folder, named: str) -> None:
    """Checks that reading fails with one line that names the folder and what the pattern `named` describes."""
    with pytest.raises((CheckpointError, ConfigurationError), match=named) as caught:
        read_tokenizer(folder.path)
    assert str(folder.path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(folder.path), "")) <= 500


FILES: dict[str, tuple[Callable[[Folder], Any], str]] = {
    "nothing": (lambda f: f, r"has no tokenizer"),
    "only the configuration": (lambda f: f.config(), r"has no tokenizer"),
    "vocab.txt not UTF-8": (
        lambda f: (f.path / "vocab.txt").write_bytes(b"a\n\xff\n"),
        r"vocab\.txt is not a vocabulary",
    ),
    "vocab.txt empty": (lambda f: f.text("vocab.txt", ""), r"the vocabulary lacks the unknown token '\[UNK\]'"),
    "tokenizer.json no JSON": (lambda f: f.text("tokenizer.json", "{"), r"tokenizer\.json is not valid JSON"),
    "configuration cut": (
        lambda f: f.vocabulary().text("tokenizer_config.json", '{"a'),
        r"tokenizer_config\.json is not valid JSON",
    ),
    "map no object": (
        lambda f: f.vocabulary().json("special_tokens_map.json", []),
        r"holds a JSON list; expected an object",
    ),
    "class in config.json": (
        lambda f: f.vocabulary().json("config.json", {"tokenizer_class": "CLIPTokenizer"}),
        r"config\.json: tokenizer_class is 'CLIPTokenizer'",
    ),
    "unknown name in the map": (
        lambda f: f.vocabulary().special_map(image_token="<i>"),
        r"special_tokens_map\.json: image_token",
    ),
    "added token of text": (
        lambda f: f.vocabulary().added(**{"<new>": "7"}),
        r"added_tokens\.json: '<new>' is '7'",
    ),
    "added token with a foreign id": (
        lambda f: f.vocabulary().added(**{"<new>": 30522}),
        rf"the added token '<new>' has the id 30522, expected {NEW}",
    ),
    "extras that contradict each other": (
        lambda f: f.vocabulary().config(extra_special_tokens=["a"]).special_map(additional_special_tokens=["b"]),
        r"extra_special_tokens and .*additional_special_tokens contradict each other",
    ),
    "two vocabularies": (
        lambda f: f.saved().vocabulary([*WORDS[:40], "dog", *WORDS[41:]]),
        r"vocab\.txt and tokenizer\.json contradict each other, first at '##j' \(id None / 40\)",
    ),
    "cased tokenizer.json without a configuration": (
        lambda f: f.saved(do_lower_case=False).remove("tokenizer_config.json"),
        r"normalizer\.strip_accents is False.* use True",
    ),
    "a token that the decoder leaves out": (
        lambda f: (
            f.saved()
            .edit("tokenizer.json", lambda c: c["added_tokens"].append({"id": NEW, **TOKEN}))
            .edit("tokenizer_config.json", lambda c: c.update(added_tokens_decoder={}))
        ),
        r"added token '<new>' is \{'id': \d+, .* use None",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, folder: Folder) -> None:
    make, message = FILES[name]
    make(folder)
    refuse(folder, message)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "CLIPTokenizer"}, r"tokenizer_class is 'CLIPTokenizer'"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, r"'PreTrainedTokenizerFast', which needs a tokenizer\.json"),
        ({"auto_map": {"AutoTokenizer": ["x.Y"]}}, r"auto_map .* code"),
        ({"do_stem": True}, r"unknown key 'do_stem' \(value True\)"),
        ({"image_token": "<i>"}, r"unknown key 'image_token' \(value '<i>'\)"),
        ({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, r"unknown key 'fast_tokenizer_files'"),
        ({"truncation_side": "left"}, r"truncation_side is 'left'"),
        ({"padding_side": "left"}, r"padding_side is 'left'"),
        ({"split_special_tokens": True}, r"split_special_tokens is True"),
        ({"do_basic_tokenize": False}, r"do_basic_tokenize is False"),
        ({"never_split": ["cat"]}, r"never_split is \['cat'\]"),
        ({"init_inputs": ["x"]}, r"init_inputs is \['x'\]"),
        ({"do_lower_case": "no"}, r"tokenizer_config\.json: do_lower_case is 'no'"),
        ({"do_lower_case": None}, r"do_lower_case is None"),
        ({"strip_accents": 1}, r"strip_accents is 1"),
        ({"model_max_length": 0}, r"model_max_length is 0"),
        ({"model_max_length": 1.5}, r"model_max_length is 1\.5"),
        ({"max_len": "64"}, r"max_len is '64'"),
        ({"unk_token": None}, r"unk_token is null"),
        ({"unk_token": "<x>"}, r"the vocabulary lacks the unknown token '<x>'"),
        ({"pad_token": ""}, r"pad_token is an empty token"),
        ({"pad_token": 0}, r"pad_token is 0"),
        ({"cls_token": "a b"}, "'a b' cannot enclose a text"),
        (
            {"extra_special_tokens": {"image_token": "<i>"}},
            r"extra_special_tokens is \{.*\}",
        ),
        ({"extra_special_tokens": [{"content": "<i>"}]}, r"extra_special_tokens is \{.*\}"),
        ({"added_tokens_decoder": []}, r"added_tokens_decoder is \[\]"),
        ({"added_tokens_decoder": {"x": TOKEN}}, r"added_tokens_decoder: the key 'x'"),
        (
            {"added_tokens_decoder": {"4": "[MASK]"}},
            r"added_tokens_decoder: 4 is '\[MASK\]'",
        ),
        ({"added_tokens_decoder": {"30522": TOKEN}}, rf"'<new>' has the id 30522, expected {NEW}"),
        (
            {"added_tokens_decoder": {"4": {**TOKEN, "w": 1}}},
            r"4: the fields \['w'\]",
        ),
        ({"added_tokens_decoder": {"4": PLAIN}}, r"4: content is None"),
        ({"added_tokens_decoder": {"4": {**TOKEN, "lstrip": 1}}}, r"4: lstrip is 1"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_configuration(config: dict[str, Any], message: str, folder: Folder) -> None:
    refuse(folder.vocabulary().config(**config), message)


LEFT = {"direction": "Left", "max_length": 7, "strategy": "LongestFirst", "stride": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["model"].update(type="BPE"),
            r"tokenizer\.json: model\.type is 'BPE'",
        ),
        (lambda c: c.pop("model"), r"tokenizer\.json: model is None"),
        (lambda c: c["model"].pop("vocab"), r"tokenizer\.json: model\.vocab is None"),
        (lambda c: c["model"]["vocab"].update(cat=-1), r"the id of 'cat' is -1"),
        (lambda c: c["model"]["vocab"].update(cat=2**32), r"the id of 'cat' is 4294967296"),
        (lambda c: c["model"]["vocab"].update(cat="1"), r"id of 'cat' is '1'"),
        (lambda c: c["model"].update(unk_token="cat"), r"model\.unk_token is 'cat'.* use '\[UNK\]'"),
        (lambda c: c["model"].update(continuing_subword_prefix="@@"), r"model\.continuing_subword_prefix is '@@'"),
        (lambda c: c["model"].update(max_input_chars_per_word=9), r"model\.max_input_chars_per_word is 9"),
        (lambda c: c["normalizer"].update(lowercase=False, strip_accents=True), r"normalizer\.lowercase is False"),
        (lambda c: c["normalizer"].update(strip_accents=False), r"normalizer\.strip_accents is False"),
        (
            lambda c: c["normalizer"].update(handle_chinese_chars=False),
            r"normalizer\.handle_chinese_chars is False",
        ),
        (lambda c: c["normalizer"].update(clean_text=False), r"normalizer\.clean_text is False"),
        (lambda c: c.update(normalizer=None), r"normalizer\.type is None"),
        (lambda c: c.update(normalizer={"type": "NFC"}), r"normalizer\.type is 'NFC'"),
        (lambda c: c.update(normalizer="x"), r"normalizer is 'x'"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), r"pre_tokenizer\.type is 'Whitespace'"),
        (lambda c: c.update(post_processor=None), r"post_processor is \{\}.* use \(2, 3\)"),
        (
            lambda c: c.update(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[MASK]", 4]}),
            r"post_processor is \(4, 3\).* use \(2, 3\)",
        ),
        (lambda c: c["added_tokens"].append(3), r"added_tokens is 3"),
        (lambda c: c["added_tokens"][0].update(content=[]), r"content is \[\]"),
        (lambda c: c.update(added_tokens={}), r"added_tokens is \{\}"),
        (lambda c: c["added_tokens"].append(TOKEN), r"added_tokens: id is None"),
        (lambda c: c.update(truncation=LEFT), r"truncation\.direction is 'Left'"),
        (lambda c: c.update(padding={"direction": "Left"}), r"padding\.direction is 'Left'"),
    ],
)
def test_tokenizer_json(change: Edit, message: str, folder: Folder) -> None:
    refuse(folder.saved().edit("tokenizer.json", change), message)


SPECIAL_TOKEN = {**PLAIN, "content": "<new>", "special": True}
VALUES = [None, True, 0, -1, 2.5, 10**400, "", "x", [], [3], {}, {"a": {}}]


def mutated(draw: random.Random, content: Any) -> Any:
    """`content` with one value somewhere inside replaced or removed."""
    if not isinstance(content, dict | list) or not content or draw.random() < 0.1:
        return copy.deepcopy(draw.choice(VALUES))
    key = draw.choice(list(content)) if isinstance(content, dict) else draw.randrange(len(content))
    if draw.random() < 0.2:
        del content[key]
    else:
        content[key] = mutated(draw, content[key])
    return content


@pytest.mark.parametrize("decoder", [False, True])
def test_mutated_files_are_read_or_refused(decoder: bool, folder: Folder) -> None:
    """Whatever the files contain, the caller gets a tokenizer or one of the declared errors, on one line."""
    folder.saved(extra_special_tokens=["<new>"])
    folder.special_map(pad_token="[PAD]", mask_token={**PLAIN, "content": "[MASK]"}).added(**{"<new>": NEW})
    if decoder:
        folder.edit("tokenizer_config.json", lambda c: c.update(added_tokens_decoder={str(NEW): SPECIAL_TOKEN}))
    names = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    plain = {name: (folder.path / name).read_text(encoding="utf-8") for name in names}
    draw = random.Random(4)
    read, refusals = 0, []
    for _ in range(400):
        name = draw.choice(names)
        folder.json(name, mutated(draw, json.loads(plain[name])))
        try:
            read_tokenizer(folder.path)
            read += 1
        except (CheckpointError, ConfigurationError) as error:
            refusals.append(str(error))
        folder.text(name, plain[name])
    assert min(read, len(refusals)) > 20
    assert not any("\n" in message for message in refusals)
    assert max(len(message.replace(str(folder.path), "")) for message in refusals) <= 500


def test_transformers_ignores_contradictions_silently(folder: Folder) -> None:
    """Why they are refused: it lowercases with a cased tokenizer.json whose configuration is lost."""
    folder.saved(do_lower_case=False)
    assert BertTokenizer.from_pretrained(folder.path)("Cat")["input_ids"][1] == WORDS.index("Cat")
    folder.remove("tokenizer_config.json")
    assert BertTokenizer.from_pretrained(folder.path)("Cat")["input_ids"][1] == WORDS.index("cat")


def test_truncation_side_of_the_configuration_has_precedence(folder: Folder) -> None:
    folder.saved().edit("tokenizer.json", lambda c: c.update(truncation=LEFT))
    folder.edit("tokenizer_config.json", lambda c: c.update(truncation_side="right"))
    oracle = BertTokenizer.from_pretrained(folder.path)
    assert oracle.truncation_side == "right"
    assert json.loads(read_tokenizer(folder.path).json)["truncation"] is None


def test_another_post_processor_with_the_same_ids_is_accepted(folder: Folder) -> None:
    plain = read_tokenizer(folder.saved().path)
    template = processors.TemplateProcessing(single="[CLS] $0 [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder.edit("tokenizer.json", lambda c: c.update(post_processor=json.loads(template.__getstate__())))
    assert read_tokenizer(folder.path) == plain


def test_large_vocabularies_are_refused_before_they_are_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "MAX_JSON_BYTES", 9)
    refuse(folder.vocabulary(), r"vocab\.txt has \d+ bytes; expected at most 9")
