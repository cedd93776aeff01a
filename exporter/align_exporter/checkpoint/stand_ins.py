"""What stands in for the files that a folder with only a ``config.json`` lacks: a vocabulary and the preprocessing.

Both are the same for every seed. The vocabulary has BERT's special tokens, then words and pieces of one to three
letters, so that a text takes some more tokens than with BERT's own vocabulary, and no word of Latin letters is unknown.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from itertools import islice, product

from align_reference.config import VisionConfig
from align_runtime.errors import ConfigurationError
from align_runtime.preprocessing import ImagePreprocessing

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHARACTERS = string.ascii_lowercase + string.digits
MAX_ENTRIES = 1 << 18  # texts give none of the later ones
LONGEST_PIECE = 3  # letters; 26³ words and as many pieces fill BERT's 30,522 entries
# Of kakaobrain/align-base, whose images have 289 pixels a side.
RESIZED, CROPPED = 346, 289


def vocabulary(size: int) -> dict[str, int]:
    """token → id of a WordPiece vocabulary of `size` entries, at most `MAX_ENTRIES`.

    Raises:
        ConfigurationError: too few entries for BERT's special tokens.
    """
    if size < len(SPECIAL):
        raise ConfigurationError(
            f"vocab_size is {size}; a tokenizer can stand in for a missing one from {len(SPECIAL)} entries on"
        )
    return {token: identifier for identifier, token in enumerate(islice(_tokens(), min(size, MAX_ENTRIES)))}


def _tokens() -> Iterator[str]:
    yield from SPECIAL
    for characters in (CHARACTERS, string.punctuation):
        yield from characters
    yield from (f"##{character}" for character in CHARACTERS)
    for length in range(2, LONGEST_PIECE + 1):
        words = ["".join(letters) for letters in product(string.ascii_lowercase, repeat=length)]
        yield from words
        yield from (f"##{word}" for word in words)
    number = 0
    while True:
        yield f"[unused{number}]"  # as BERT calls entries that no text gives
        number += 1


def preprocessing(config: VisionConfig) -> ImagePreprocessing:
    """The preprocessing of the published checkpoint, scaled to the image size of `config`."""
    sizes = config.image_size if isinstance(config.image_size, tuple) else (config.image_size,)
    cropped = {"height": sizes[0], "width": sizes[-1]}
    return ImagePreprocessing.from_hub(
        {
            "size": {name: round(side * RESIZED / CROPPED) for name, side in cropped.items()},
            "resample": 2,
            "do_center_crop": True,
            "crop_size": cropped,
            "rescale_factor": 0.00784313725490196,
            "rescale_offset": True,
            "do_normalize": False,
            "include_top": False,
        },
        "preprocessing",
    )
