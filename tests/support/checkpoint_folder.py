"""Tokenizer and processor files of small checkpoint folders, in every format that transformers has written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import BertTokenizer

from support.text_samples import SPECIAL

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    *SPECIAL,
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *(
        "é",
        "photo",
        "cat",
        "Cat",
        "##to",
        "中",
        "文",
        "中文",
        "café",
        "cafe",
        "new",
        "mask",
        "pad",
        "[",
        "]",
        "<",
        ">",
        ".",
    ),
]
NEW = len(WORDS)  # the id of the first token that is added
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
TOKEN = {**PLAIN, "content": "<new>", "normalized": True, "special": False}

Edit = Callable[[dict[str, Any]], Any]


class Folder:
    """Writes the files of a checkpoint folder; every method returns the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.json("config.json", {"model_type": "align"})

    def text(self, name: str, content: str) -> Folder:
        (self.path / name).write_text(content, encoding="utf-8", newline="")
        return self

    def json(self, name: str, content: Any) -> Folder:
        return self.text(name, json.dumps(content, ensure_ascii=False))

    def vocabulary(self, words: list[str] = WORDS, newline: str = "\n") -> Folder:
        return self.text("vocab.txt", newline.join(words) + newline)

    def config(self, **config: Any) -> Folder:
        return self.json("tokenizer_config.json", config)

    def special_map(self, **tokens: Any) -> Folder:
        return self.json("special_tokens_map.json", tokens)

    def added(self, **tokens: Any) -> Folder:
        return self.json("added_tokens.json", tokens)

    def saved(self, **options: Any) -> Folder:
        """The files of transformers 5: ``tokenizer.json`` and ``tokenizer_config.json``."""
        BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}, **options).save_pretrained(self.path)
        return self

    def edit(self, name: str, change: Edit) -> Folder:
        content = json.loads((self.path / name).read_text(encoding="utf-8"))
        change(content)
        return self.json(name, content)

    def remove(self, name: str) -> Folder:
        (self.path / name).unlink()
        return self
