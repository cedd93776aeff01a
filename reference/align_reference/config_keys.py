"""Keys of a ``config.json`` that are no fields of ours: ignored by name, accepted with one value, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align_reference.listing import listing
from align_runtime.errors import ConfigurationError

# Keys that cannot change an embedding: training only, bookkeeping, text generation, or derived from other keys.
# Older transformers wrote all of the generation settings into every sub-configuration. The text tower has
# `pad_token_id` and `num_hidden_layers` as fields, which go first; elsewhere they say nothing.
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
IGNORED_KEYS = TRAINING_KEYS | BOOKKEEPING_KEYS | GENERATION_KEYS

# Keys that would change the architecture; only the value that leaves it as it is can be accepted.
NEUTRAL_VALUES: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "position_embedding_type": ("absolute",),
    "pruned_heads": ({}, None),
}


def refuse_unknown(rest: Mapping[str, Any], where: str) -> None:
    """Checks the keys of a configuration that are no fields; `where` begins the message.

    Raises:
        ConfigurationError: a key of `NEUTRAL_VALUES` with another value, or a key that is in no list.
    """
    for key, neutral in NEUTRAL_VALUES.items():
        if key in rest and rest[key] not in neutral:
            raise ConfigurationError(f"{where}: {key} is {rest[key]!r}; only {neutral[0]!r} is supported")
    unknown = sorted(key for key in rest if key not in IGNORED_KEYS and key not in NEUTRAL_VALUES)
    if unknown:
        raise ConfigurationError(
            f"{where}: unknown key {listing(map(repr, unknown))}; a key that is not understood could change the "
            "result, so it is refused rather than ignored"
        )
