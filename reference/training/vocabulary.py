"""A WordPiece vocabulary of the words of the captions that can also spell any lower-case ASCII text."""

from __future__ import annotations

import string
from collections import Counter
from functools import cache

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from training.captions import random_caption
from training.scenes import SUBJECTS, random_scene

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
SAMPLES = 20_000


def build_tokenizer() -> Tokenizer:
    """A BERT tokenizer (lower case, accents stripped). Its vocabulary is always the same.

    Order of the ids: special tokens, printable ASCII characters except upper case, letters and digits as continuations
    (``##a``), words of the captions from the most frequent to the rarest.
    """
    characters = [chr(code) for code in range(33, 127) if chr(code) not in string.ascii_uppercase]
    continuations = [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    tokens = [*SPECIAL_TOKENS, *characters, *continuations]
    tokens += [word for word in _caption_words() if word not in tokens]
    return _bert({token: index for index, token in enumerate(tokens)})


@cache
def _caption_words() -> tuple[str, ...]:
    """The words of many captions, by decreasing frequency and then alphabetically.

    Counted rather than learned with the trainer of `tokenizers`, which orders equally frequent pieces by a hash table:
    two runs give different vocabularies.
    """
    rng = np.random.default_rng(0)
    words: Counter[str] = Counter()
    for subject in SUBJECTS * (SAMPLES // len(SUBJECTS)):
        words.update(random_caption(random_scene(rng, subject), rng).text.split())
    return tuple(sorted(words, key=lambda word: (-words[word], word)))


def _bert(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer
