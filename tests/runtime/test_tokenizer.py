"""Token ids against transformers' BertTokenizer on every code point and on fuzzed texts, and the errors."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import tokenizers
from transformers import BertTokenizer

from align_exporter.checkpoint.read_checkpoint import read_tokenizer
from align_runtime import tokenizer as module
from align_runtime.errors import BundleError, ConfigurationError, InputError
from align_runtime.tokenizer import Tokenizer
from support.text_samples import SPECIAL, code_point_texts, fuzzed_texts, vocabulary, write_vocabulary

LENGTH = 64


@dataclass(frozen=True)
class Pair:
    """The tokenizer of a checkpoint as transformers reads it, and as a bundle contains it."""

    oracle: Any
    ours: Tokenizer
    path: Path

    def assert_equal(self, texts: list[str]) -> None:
        expected = self.oracle(texts, truncation=True, max_length=self.ours.max_length)["input_ids"]
        rows = [row.tolist() for row in self.ours.encode(texts)]
        if rows != expected:
            wrong = next(i for i, (row, other) in enumerate(zip(rows, expected, strict=True)) if row != other)
            pytest.fail(f"{texts[wrong]!r}: {rows[wrong]} instead of {expected[wrong]}")


def make_pair(folder: Path, **config: Any) -> Pair:
    write_vocabulary(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **config}))
    path = folder / "bundled.json"
    path.write_text(read_tokenizer(folder).json, encoding="utf-8")
    return Pair(BertTokenizer.from_pretrained(folder), Tokenizer.from_file(path, LENGTH, 0), path)


@pytest.fixture(scope="module")
def uncased(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("uncased"), do_lower_case=True)


def test_every_code_point_below_0x30000(uncased: Pair) -> None:
    texts = code_point_texts()
    assert len(texts) == 0x30000 - 0x800
    for start in range(0, len(texts), 16_384):
        uncased.assert_equal(texts[start : start + 16_384])


def test_20000_fuzzed_texts(uncased: Pair) -> None:
    texts = fuzzed_texts(20_000, seed=7)
    for start in range(0, len(texts), 5000):
        uncased.assert_equal(texts[start : start + 5000])


def test_the_samples_are_not_all_unknown(uncased: Pair) -> None:
    """Equality is meaningful only if ids vary: less than a third unknown, thousands of ids, all lengths."""
    rows = uncased.ours.encode(fuzzed_texts(20_000, seed=7)[:5000] + code_point_texts()[::16])
    ids = numpy.concatenate(rows)
    unknown = vocabulary().index("[UNK]")
    assert (ids == unknown).mean() < 0.33
    assert len(numpy.unique(ids)) > 5000
    assert {len(row) for row in rows} == set(range(2, LENGTH + 1))
    assert {vocabulary().index(token) for token in SPECIAL} <= set(ids.tolist())


@pytest.mark.parametrize(
    "config",
    [
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": True, "tokenize_chinese_chars": False},
    ],
    ids=str,
)
def test_other_normalizations(config: dict[str, Any], tmp_path: Path, uncased: Pair) -> None:
    pair = make_pair(tmp_path, **config)
    texts = code_point_texts()[::23] + fuzzed_texts(1000, seed=8)
    pair.assert_equal(texts)
    differing = [
        a.tolist() != b.tolist() for a, b in zip(pair.ours.encode(texts), uncased.ours.encode(texts), strict=True)
    ]
    assert sum(differing) > 100


@pytest.mark.parametrize("length", [3, 4, 5, 8, 17, 512])
def test_texts_over_the_limit_are_truncated(length: int, uncased: Pair) -> None:
    ours = Tokenizer.from_file(uncased.path, length, 0)
    texts = ["a", "a b", "a b c", "a b c d " * 200, *fuzzed_texts(300, seed=9)]
    Pair(uncased.oracle, ours, uncased.path).assert_equal(texts)
    assert max(len(row) for row in ours.encode(texts)) == length


def test_empty_and_blank_texts(uncased: Pair) -> None:
    cls, sep = vocabulary().index("[CLS]"), vocabulary().index("[SEP]")
    for row in uncased.ours.encode(["", " ", "\t\n\u3000", "\0\x07"]):
        assert row.tolist() == [cls, sep]
    assert uncased.ours.encode([]) == []


def test_rows_are_int64_and_padded(uncased: Pair) -> None:
    rows = uncased.ours.encode(("a photo of a cat", "", "[CLS] x"))
    assert all(row.dtype == numpy.int64 and row.ndim == 1 for row in rows)
    for options, length in (({"padding": True}, None), ({"padding": "max_length", "max_length": 30}, 30)):
        expected = uncased.oracle(["a photo of a cat", "", "[CLS] x"], return_tensors="np", **options)
        input_ids, attention_mask = uncased.ours.pad(rows, length)
        numpy.testing.assert_array_equal(input_ids, expected["input_ids"], strict=True)
        numpy.testing.assert_array_equal(attention_mask, expected["attention_mask"], strict=True)


def test_padding_uses_the_given_id_and_accepts_no_rows(uncased: Pair) -> None:
    ours = Tokenizer.from_file(uncased.path, LENGTH, 9)
    input_ids, attention_mask = ours.pad([numpy.array([5, 6]), numpy.array([7])])
    assert input_ids.tolist() == [[5, 6], [7, 9]]
    assert attention_mask.tolist() == [[1, 1], [1, 0]]
    assert [array.shape for array in ours.pad([])] == [(0, 0), (0, 0)]
    assert [array.shape for array in ours.pad([], 7)] == [(0, 7), (0, 7)]
    with pytest.raises(InputError, match="3 ids") as caught:
        ours.pad([numpy.array([1]), numpy.array([1, 2, 3])], 2)
    assert caught.value.index == 1


def test_vocabulary_size_counts_added_tokens(uncased: Pair, tmp_path: Path) -> None:
    assert uncased.ours.vocab_size == len(vocabulary())
    new = {"id": len(vocabulary()), "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False}
    text = change(
        uncased.path, lambda values: values["added_tokens"].append(new | {"normalized": True, "special": False})
    )
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    ours = Tokenizer.from_file(tmp_path / "tokenizer.json", LENGTH, 0)
    assert ours.vocab_size == len(vocabulary()) + 1
    assert ours.encode(["a<new>"])[0][-2] == len(vocabulary())


def test_the_file_is_the_one_that_the_package_would_write(uncased: Pair) -> None:
    """So that other tools read it too, with the same ids."""
    theirs = tokenizers.Tokenizer.from_file(str(uncased.path))
    assert json.loads(theirs.to_str()) == json.loads(uncased.path.read_text(encoding="utf-8"))
    theirs.enable_truncation(LENGTH)
    texts = fuzzed_texts(500, seed=12)
    assert [row.tolist() for row in uncased.ours.encode(texts)] == [
        encoding.ids for encoding in theirs.encode_batch(texts)
    ]


def test_threads_share_a_tokenizer(uncased: Pair) -> None:
    texts = fuzzed_texts(500, seed=11)
    expected = [row.tolist() for row in uncased.ours.encode(texts)]
    results: list[list[list[int]]] = []

    def work() -> None:
        results.append([row.tolist() for row in uncased.ours.encode(texts)])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 6


def test_a_forked_child_tokenizes_silently(uncased: Pair) -> None:
    program = f"""
import os, sys
from align_runtime.tokenizer import Tokenizer
tokenizer = Tokenizer.from_file({str(uncased.path)!r}, 64, 0)
texts = ["a photo of a cat"] * 200
before = [row.tolist() for row in tokenizer.encode(texts)]
child = os.fork()
if child == 0:
    os._exit(0 if [row.tolist() for row in tokenizer.encode(texts)] == before else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    paths = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin"}  # without TOKENIZERS_PARALLELISM
    done = subprocess.run(
        [sys.executable, "-c", program], env=paths, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "NoneType"),
        (b"a cat", "bytes"),
        (float("nan"), "float"),
        (("a", "cat"), "tuple"),
        ("a\ud800b", r"surrogate '\\ud800' at character 1"),
        ("\udfff", r"surrogate '\\udfff' at character 0"),
        ("x" * 1_000_001, "1000001 characters"),
    ],
    ids=["None", "bytes", "NaN", "tuple", "surrogate in a word", "surrogate", "too long"],
)
def test_inputs_that_are_not_texts_are_refused(text: Any, message: str, uncased: Pair) -> None:
    with pytest.raises(InputError, match=message) as caught:
        uncased.ours.encode(["a", "b", text])
    assert caught.value.index == 2
    assert "\n" not in str(caught.value)


def test_surrogates_fail_in_transformers_too(uncased: Pair) -> None:
    with pytest.raises(TypeError):
        uncased.oracle(["a\ud800b"])


@pytest.mark.parametrize("texts", ["a photo", None, 3, {"a"}, iter(["a"])])
def test_a_single_text_is_not_a_list(texts: Any, uncased: Pair) -> None:
    with pytest.raises(InputError, match="list of texts"):
        uncased.ours.encode(texts)


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("{}", "'model' is missing"),
        ('{"model": {"type": "WordPiece"', "is not valid JSON"),
        ("hello", "is not valid JSON"),
        ("[]", "holds a JSON list"),
    ],
)
def test_damaged_tokenizer_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=rf"^{path}:? .*{message}") as caught:
        Tokenizer.from_file(path, LENGTH, 0)
    assert "\n" not in str(caught.value)


def test_unreadable_tokenizer_files(tmp_path: Path, uncased: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        Tokenizer.from_file(tmp_path / "absent.json", LENGTH, 0)
    with pytest.raises(BundleError, match="not a regular file"):
        Tokenizer.from_file(tmp_path, LENGTH, 0)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(BundleError, match="not UTF-8"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", LENGTH, 0)
    text = change(uncased.path, lambda content: content["model"].update(unk_token="[unknown]"))
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(BundleError, match=r"unknown token '\[unknown\]'"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", LENGTH, 0)
    monkeypatch.setattr(module, "MAX_BYTES", 9)
    with pytest.raises(BundleError, match="at most 9"):
        Tokenizer.from_file(uncased.path, LENGTH, 0)


@pytest.mark.parametrize(
    ("length", "pad", "message"),
    [
        (2, 0, "max_length is 2; expected 3 to 1048576"),
        (-1, 0, "max_length is -1"),
        (10**30, 0, "max_length is 10000"),
        (64, -1, "pad_token_id is -1"),
        (64, 10**6, "pad_token_id is 1000000"),
    ],
)
def test_values_out_of_range(length: int, pad: int, message: str, uncased: Pair) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Tokenizer.from_file(uncased.path, length, pad)
