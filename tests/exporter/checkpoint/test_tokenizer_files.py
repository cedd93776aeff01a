"""Tokenizer files that are missing, damaged, not understood, or contradict each other: each refused by name."""

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
from align_exporter.checkpoint.assets import read_tokenizer
from align_runtime.errors import CheckpointError, ConfigurationError
from support.checkpoint_folder import NEW, PLAIN, TOKEN, WORDS, Edit, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def refuse(folder: Folder, message: str) -> None:
    with pytest.raises((CheckpointError, ConfigurationError), match=message) as caught:
        read_tokenizer(folder.path)
    assert str(folder.path) in str(caught.value)
    assert "\n" not in str(caught.value)


FILES: dict[str, tuple[Callable[[Folder], Any], str]] = {
    "nothing": (lambda f: f, r"has no tokenizer; looked for tokenizer\.json and vocab\.txt$"),
    "only the configuration": (lambda f: f.config(), r"has no tokenizer; looked for tokenizer\.json"),
    "vocab.txt not UTF-8": (
        lambda f: (f.path / "vocab.txt").write_bytes(b"a\n\xff\n"),
        r"vocab\.txt is no vocabulary, one token per line in UTF-8",
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
        r"config\.json: tokenizer_class is 'CLIPTokenizer'; only BertTokenizer and BertTokenizerFast are supported",
    ),
    "unknown name in the map": (
        lambda f: f.vocabulary().special_map(image_token="<i>"),
        r"special_tokens_map\.json: image_token is not understood; known are bos_token",
    ),
    "added token of text": (
        lambda f: f.vocabulary().added(**{"<new>": "7"}),
        r"added_tokens\.json: '<new>' is '7' \(str\); expected int",
    ),
    "added token with a foreign id": (
        lambda f: f.vocabulary().added(**{"<new>": 30522}),
        rf"the added token '<new>' has the id 30522, but would get {NEW} after a vocabulary of {NEW} tokens",
    ),
    "extras that contradict each other": (
        lambda f: f.vocabulary().config(extra_special_tokens=["a"]).special_map(additional_special_tokens=["b"]),
        r"extra_special_tokens and .*additional_special_tokens contradict each other; keep one",
    ),
    "two vocabularies": (
        lambda f: f.saved().vocabulary([*WORDS[:40], "dog", *WORDS[41:]]),
        r"vocab\.txt and tokenizer\.json contradict each other, first at '##j' \(id None / 40\); transformers would",
    ),
    "cased tokenizer.json without a configuration": (
        lambda f: f.saved(do_lower_case=False).remove("tokenizer_config.json"),
        r"normalizer\.strip_accents is False, but with tokenizer_config\.json and the defaults .* it is True",
    ),
    "a token that the decoder leaves out": (
        lambda f: (
            f.saved()
            .edit("tokenizer.json", lambda c: c["added_tokens"].append({"id": NEW, **TOKEN}))
            .edit("tokenizer_config.json", lambda c: c.update(added_tokens_decoder={}))
        ),
        r"added token '<new>' is \{'id': \d+, .*, but with .* it is None",
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
        ({"tokenizer_class": "CLIPTokenizer"}, r"tokenizer_class is 'CLIPTokenizer'; only BertTokenizer and"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, r"tokenizer_class is 'PreTrainedTokenizerFast'; only"),
        ({"auto_map": {"AutoTokenizer": ["x.Y"]}}, r"auto_map asks for code from the checkpoint, which is never run"),
        ({"do_stem": True}, r"the key 'do_stem' \(value True\) is not understood; known are add_bos_token, add_eos"),
        ({"image_token": "<i>"}, r"the key 'image_token' \(value '<i>'\) is not understood"),
        ({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, r"the key 'fast_tokenizer_files'"),
        ({"truncation_side": "left"}, r"truncation_side is 'left'; only 'right' is supported"),
        ({"padding_side": "left"}, r"padding_side is 'left'; only 'right' is supported"),
        ({"split_special_tokens": True}, r"split_special_tokens is True; only False is supported"),
        ({"do_basic_tokenize": False}, r"do_basic_tokenize is False; only None or True is supported"),
        ({"never_split": ["cat"]}, r"never_split is \['cat'\]; only None or \[\] is supported"),
        ({"init_inputs": ["x"]}, r"init_inputs is \['x'\]; only \[\] is supported"),
        ({"do_lower_case": "no"}, r"tokenizer_config\.json: do_lower_case is 'no' \(str\); expected bool"),
        ({"do_lower_case": None}, r"do_lower_case is None \(NoneType\); expected bool"),
        ({"strip_accents": 1}, r"strip_accents is 1 \(int\); expected bool"),
        ({"model_max_length": 0}, r"model_max_length is 0; a positive integer was expected"),
        ({"model_max_length": 1.5}, r"model_max_length is 1\.5; a positive integer was expected"),
        ({"max_len": "64"}, r"max_len is '64' \(str\); expected int or float"),
        ({"unk_token": None}, r"unk_token is null; a BERT tokenizer needs one"),
        ({"unk_token": "<x>"}, r"the vocabulary lacks the unknown token '<x>'"),
        ({"pad_token": ""}, r"pad_token is an empty token"),
        ({"pad_token": 0}, r"pad_token is 0 \(int\); expected dict"),
        ({"cls_token": "a b"}, r"'a b' and '\[SEP\]' cannot frame a text"),
        (
            {"extra_special_tokens": {"image_token": "<i>"}},
            r"extra_special_tokens is \{.*\} \(dict\); expected list",
        ),
        ({"extra_special_tokens": [{"content": "<i>"}]}, r"extra_special_tokens is \{.*\} \(dict\); expected str"),
        ({"added_tokens_decoder": []}, r"added_tokens_decoder is \[\] \(list\); expected dict"),
        ({"added_tokens_decoder": {"x": TOKEN}}, r"added_tokens_decoder: the key 'x' is no token id"),
        (
            {"added_tokens_decoder": {"4": "[MASK]"}},
            r"added_tokens_decoder: 4 is '\[MASK\]' \(str\); expected dict",
        ),
        ({"added_tokens_decoder": {"30522": TOKEN}}, rf"'<new>' has the id 30522, but would get {NEW} after a vocab"),
        (
            {"added_tokens_decoder": {"4": {**TOKEN, "w": 1}}},
            r"4: the fields \['w'\] are not understood; known are cont",
        ),
        ({"added_tokens_decoder": {"4": PLAIN}}, r"4: content is None \(NoneType\); expected str"),
        ({"added_tokens_decoder": {"4": {**TOKEN, "lstrip": 1}}}, r"4: lstrip is 1 \(int\); expected bool"),
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
            r"tokenizer\.json holds a BPE model; WordPiece, BERT's, was expected",
        ),
        (lambda c: c.pop("model"), r"tokenizer\.json: model is None \(NoneType\); expected dict"),
        (lambda c: c["model"].pop("vocab"), r"tokenizer\.json: model\.vocab is None \(NoneType\); expected dict"),
        (lambda c: c["model"]["vocab"].update(cat=-1), r"the id of 'cat' is -1; 0 to 4294967295 was expected"),
        (lambda c: c["model"]["vocab"].update(cat=2**32), r"the id of 'cat' is 4294967296; 0 to 4294967295"),
        (lambda c: c["model"]["vocab"].update(cat="1"), r"id of 'cat' is '1' \(str\); expected int"),
        (lambda c: c["model"].update(unk_token="cat"), r"model\.unk_token is 'cat', but with .* it is '\[UNK\]'"),
        (lambda c: c["model"].update(continuing_subword_prefix="@@"), r"model\.continuing_subword_prefix is '@@', but"),
        (lambda c: c["model"].update(max_input_chars_per_word=9), r"model\.max_input_chars_per_word is 9, but"),
        (lambda c: c["normalizer"].update(lowercase=False, strip_accents=True), r"normalizer\.lowercase is False, but"),
        (lambda c: c["normalizer"].update(strip_accents=False), r"normalizer\.strip_accents is False, but with tok"),
        (
            lambda c: c["normalizer"].update(handle_chinese_chars=False),
            r"normalizer\.handle_chinese_chars is False, but",
        ),
        (lambda c: c["normalizer"].update(clean_text=False), r"normalizer\.clean_text is False, but"),
        (lambda c: c.update(normalizer=None), r"normalizer\.type is None, but"),
        (lambda c: c.update(normalizer={"type": "NFC"}), r"normalizer\.type is 'NFC', but"),
        (lambda c: c.update(normalizer="x"), r"normalizer is 'x' \(str\); expected dict"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), r"pre_tokenizer\.type is 'Whitespace', but"),
        (lambda c: c.update(post_processor=None), r"post_processor is \{\}, but with .* it is \(2, 3\)"),
        (
            lambda c: c.update(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[MASK]", 4]}),
            r"post_processor is \(4, 3\), but with .* it is \(2, 3\)",
        ),
        (lambda c: c["added_tokens"].append(3), r"added_tokens is 3 \(int\); expected dict"),
        (lambda c: c["added_tokens"][0].update(content=[]), r"content is \[\] \(list\); expected str"),
        (lambda c: c.update(added_tokens={}), r"added_tokens is \{\} \(dict\); expected list"),
        (lambda c: c["added_tokens"].append(TOKEN), r"added_tokens: id is None \(NoneType\); expected int"),
        (lambda c: c.update(truncation=LEFT), r"truncation\.direction is 'Left'; only 'Right' is supported"),
        (lambda c: c.update(padding={"direction": "Left"}), r"padding\.direction is 'Left'; only 'Right' is supported"),
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
    """Whatever stands in the files, the caller sees a tokenizer or one of the declared errors, on one line."""
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


def test_why_contradictions_are_refused(folder: Folder) -> None:
    """transformers would lower-case for a cased tokenizer.json whose configuration is lost, without a word."""
    folder.saved(do_lower_case=False)
    assert BertTokenizer.from_pretrained(folder.path)("Cat")["input_ids"][1] == WORDS.index("Cat")
    folder.remove("tokenizer_config.json")
    assert BertTokenizer.from_pretrained(folder.path)("Cat")["input_ids"][1] == WORDS.index("cat")


def test_a_side_named_in_the_configuration_wins(folder: Folder) -> None:
    folder.saved().edit("tokenizer.json", lambda c: c.update(truncation=LEFT))
    folder.edit("tokenizer_config.json", lambda c: c.update(truncation_side="right"))
    oracle = BertTokenizer.from_pretrained(folder.path)
    assert oracle.truncation_side == "right"
    assert json.loads(read_tokenizer(folder.path).json)["truncation"] is None


def test_other_frames_of_the_same_ids_agree(folder: Folder) -> None:
    plain = read_tokenizer(folder.saved().path)
    template = processors.TemplateProcessing(single="[CLS] $0 [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder.edit("tokenizer.json", lambda c: c.update(post_processor=json.loads(template.__getstate__())))
    assert read_tokenizer(folder.path) == plain


def test_large_vocabularies_are_refused_unread(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "MAX_JSON_BYTES", 9)
    refuse(folder.vocabulary(), r"vocab\.txt is \d+ bytes; a vocabulary of at most 9 bytes was expected")
