"""A WordPiece vocabulary of the captions' words, wide enough to spell any lower-case ASCII text."""

from __future__ import annotations

import string
from collections import Counter

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from training.captions import random_caption
from training.scenes import SUBJECTS, random_scene

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
SAMPLES = 20_000


def build_tokenizer() -> Tokenizer:
    """A BERT tokenizer (lower case, accents stripped) whose vocabulary is always the same.

    Its ids: the special tokens, every printable ASCII character that is not upper case, each of the letters and figures
    again as a continuation (``##a``), and then the words of the captions, the most frequent first.
    """
    characters = [chr(code) for code in range(33, 127) if chr(code) not in string.ascii_uppercase]
    continuations = [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    tokens = [*SPECIAL_TOKENS, *characters, *continuations]
    tokens += [word for word in _caption_words() if word not in tokens]
    return _bert({token: index for index, token in enumerate(tokens)})


def _caption_words() -> list[str]:
    """The words of many captions, by falling frequency and then by the alphabet.

    Counted rather than learned by `tokenizers`' trainer: that one breaks ties between equally frequent pieces by the
    order of a hash table, so that two runs of it give different vocabularies.
    """
    rng = np.random.default_rng(0)
    words: Counter[str] = Counter()
    for subject in SUBJECTS * (SAMPLES // len(SUBJECTS)):
        words.update(random_caption(random_scene(rng, subject), rng).text.split())
    return sorted(words, key=lambda word: (-words[word], word))


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
