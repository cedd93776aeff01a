"""Reads one section of a ``config.json`` into a dataclass, and checks ranges.

A key is a field, ignored by name, accepted with its neutral value only, or unknown: refused, unless the user wants
unknown keys ignored, see `without_unknown`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from align_reference.activations import ACTIVATIONS
from align_reference.listing import listing, shorten
from align_runtime.errors import ConfigurationError
from align_runtime.foreign_text import shortened
from align_runtime.json_files import of_kind

Section = TypeVar("Section")

FIELD_TYPES: Mapping[str, tuple[type, ...]] = {  # annotation of a field → types of its JSON value
    "int": (int,),
    "float": (float,),
    "str": (str,),
    "int | None": (int, type(None)),
    "tuple[int, ...]": (list, tuple),
    "int | tuple[int, ...]": (int, list, tuple),
}

# Keys that cannot change an embedding: training, bookkeeping, text generation, or derived from other keys. Old versions
# of transformers wrote all generation settings into every section. `pad_token_id` and `num_hidden_layers` are fields of
# the text section, and fields take precedence over this list; in other sections they have no effect.
TRAINING_KEYS = frozenset(
    "initializer_range initializer_factor hidden_dropout_prob attention_probs_dropout_prob classifier_dropout "
    "dropout_rate drop_connect_rate batch_norm_momentum gradient_checkpointing".split()
)
BOOKKEEPING_KEYS = frozenset(
    "_name_or_path _commit_hash _attn_implementation _attn_implementation_autoset architectures attn_implementation "
    "base_model_tp_plan base_model_pp_plan chunk_size_feed_forward dtype torch_dtype finetuning_task id2label "
    "label2id name_or_path output_attentions output_hidden_states prefix problem_type return_dict sep_token_id "
    "task_specific_params tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class torchscript "
    "transformers_version use_bfloat16 use_cache bos_token_id eos_token_id pad_token_id num_hidden_layers".split()
)
GENERATION_KEYS = frozenset(
    "bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample early_stopping "
    "encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id "
    "length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences "
    "output_scores remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens temperature "
    "top_k top_p typical_p".split()
)
# Of Google's BERT files: which way its pooler reads, and the size of a pooler that no version of transformers has.
BERT_KEYS = frozenset(
    "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head "
    "pooler_type".split()
)
IGNORED_KEYS = TRAINING_KEYS | BOOKKEEPING_KEYS | GENERATION_KEYS | BERT_KEYS
MAX_UNKNOWN_KEYS = 100  # that are ignored in one file: each is printed and recorded

# Keys that would change the architecture, and the values that leave it unchanged. The first one is named in messages.
NEUTRAL_VALUES: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "position_embedding_type": ("absolute",),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),  # the weights would be in another format
}


def read_section(cls: type[Section], values: Mapping[str, Any], where: str, model_types: tuple[str, ...]) -> Section:
    """A `cls` (a dataclass) with the fields that `values` gives; `where` begins every message.

    Raises:
        ConfigurationError: another ``model_type`` than `model_types`, a key that is refused, a value of a wrong type.
    """
    model_type = values.get("model_type", model_types[0])
    if model_type not in model_types:
        raise ConfigurationError(f"{where}: model_type is {shortened(model_type)}; expected {model_types[0]!r}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    refuse_unknown({key: value for key, value in values.items() if key not in known and key != "model_type"}, where)
    given = {name: _convert(f"{where}: {name}", values[name], known[name]) for name in known if name in values}
    return cls(**given)


def refuse_unknown(rest: Mapping[str, Any], where: str) -> None:
    """Checks the keys of a section that are not fields; `where` begins the message.

    Raises:
        ConfigurationError: a key of `NEUTRAL_VALUES` with another value, or a key that is in no list.
    """
    for key, neutral in NEUTRAL_VALUES.items():
        if key in rest and rest[key] not in neutral:
            raise ConfigurationError(f"{where}: {key} is {shorten(repr(rest[key]))}; only {neutral[0]!r} is supported")
    unknown = sorted(key for key in rest if key not in IGNORED_KEYS and key not in NEUTRAL_VALUES)
    if unknown:
        raise ConfigurationError(
            f"{where}: unknown key {listing(map(repr, unknown))}; an unknown key could change the embeddings, so it is "
            "not ignored (align-export --ignore-unknown-keys does)"
        )


def known_keys(cls: type) -> frozenset[str]:
    """Every key that `read_section` knows for the dataclass `cls`."""
    return IGNORED_KEYS | NEUTRAL_VALUES.keys() | {"model_type"} | {field.name for field in fields(cls)}


def without_unknown(
    values: Mapping[str, Any], known: Collection[str], where: str, ignored: list[str]
) -> dict[str, Any]:
    """`values` without the keys that are not in `known`; for each of these, `ignored` gets a line with its value.

    Raises:
        ConfigurationError: there are more than `MAX_UNKNOWN_KEYS`.
    """
    unknown = [key for key in values if key not in known]
    if len(unknown) > MAX_UNKNOWN_KEYS:
        raise ConfigurationError(
            f"{where}: {len(unknown)} unknown keys; at most {MAX_UNKNOWN_KEYS} are ignored. Is this the file of "
            f"another model? The first are {listing(map(repr, unknown))}"
        )
    ignored += [f"{where}: ignored the unknown key {shortened(key)}: {shortened(values[key])}" for key in unknown]
    return {key: value for key, value in values.items() if key in known}


def check_range(section: object, where: str, names: tuple[str, ...], lower: int, upper: int) -> None:
    """Raises ConfigurationError where a field in `names` is outside `lower` … `upper`."""
    for name in names:
        value = getattr(section, name)
        if not lower <= value <= upper:
            raise ConfigurationError(f"{where}: {name} is {shortened(value)}; {lower} to {upper} is supported")


def check_positive(section: object, where: str, name: str, lower: float, upper: float) -> None:
    """Raises ConfigurationError where the field `name` is not between `lower`, which is positive, and `upper`."""
    value = getattr(section, name)
    if not lower <= value <= upper:
        raise ConfigurationError(f"{where}: {name} is {value}; expected a positive number, {lower:g} to {upper:g}")


def check_activation(name: str, where: str) -> None:
    """Raises ConfigurationError where `name` is not one of `ACTIVATIONS`."""
    if name not in ACTIVATIONS:
        raise ConfigurationError(f"{where}: hidden_act is {shorten(name)!r}; known: {', '.join(sorted(ACTIVATIONS))}")


def _convert(name: str, value: Any, field: Field[Any]) -> Any:
    checked = of_kind(name, value, FIELD_TYPES[str(field.type)])
    if isinstance(checked, list | tuple):
        return tuple(of_kind(name, item, int) for item in checked)
    return checked
