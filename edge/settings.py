"""Handling of each setting of a checkpoint folder: carried, applied, refused or unused.

The settings are the keys of JSON files: Transformers' config.json and tokenizer_config.json, and
the files of sentence-transformers. A table lists every known key; an unknown key is reported, so
that no setting is dropped silently.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.console import say
from edge.errors import CheckpointError

Handling = Literal["carried", "applied", "refused", "unused"]


@dataclass(frozen=True)
class Setting:
    """Handling of one key.

    carried: written into a bundle's files. applied: part of the reference and of every artifact.
    refused: an error unless the value is in `harmless`. unused: has no effect on outputs. why:
    where the value ends up or, for a refused key, what to do instead.
    """

    handling: Handling
    why: str
    harmless: tuple[Any, ...] = ()


Table = Mapping[str, Setting]


def _settings(
    names: str, handling: Handling, why: str, harmless: tuple[Any, ...] = ()
) -> dict[str, Setting]:
    return dict.fromkeys(names.split(), Setting(handling, why, harmless))


_UNSET: tuple[Any, ...] = (None, False, {}, [], "")
# Keys of config.json beside those that an architecture's own class declares, which its model reads.
CONFIG: Table = {
    **_settings("model_type architectures", "carried", "the manifest's source"),
    **_settings("id2label label2id num_labels", "carried", "the manifest's labels"),
    **_settings("problem_type", "carried", "the manifest's problem_type"),
    **_settings("reads_pairs", "carried", "a student's note of what its task reads"),
    **_settings(
        "sentence_transformers sbert_ce_default_activation_function",
        "carried",
        "the manifest's activation",
    ),
    **_settings(
        "is_encoder_decoder is_decoder add_cross_attention",
        "refused",
        "only encoders are supported",
        _UNSET,
    ),
    **_settings(
        "quantization_config compression_config",
        "refused",
        "save the checkpoint with its weights in floating point",
        _UNSET,
    ),
    **_settings("pruned_heads", "refused", "Transformers no longer prunes heads", _UNSET),
    **_settings(
        "per_layer_config", "refused", "layers of different shapes are not supported", _UNSET
    ),
    **_settings(
        "adapters adapter_fusion", "refused", "merge the adapters into the weights and save", _UNSET
    ),
    **_settings(
        "position_embedding_type",
        "refused",
        "Transformers' class has no relative positions any more and would leave their weights out",
        (None, "absolute"),
    ),
    **_settings("pad_token_id bos_token_id eos_token_id cls_token_id", "applied", "by the model"),
    **_settings("sep_token_id mask_token_id unk_token_id", "applied", "by the model"),
    **_settings("tie_word_embeddings", "applied", "by the model when its weights are loaded"),
    **_settings("tokenizer_class", "applied", "by AutoTokenizer"),
    **_settings("true_hidden_size pooler_hidden_size", "applied", "by the model"),
    **_settings(
        "rope_scaling rope_theta rope_parameters global_rope_theta local_rope_theta",
        "applied",
        "by the model",
    ),
    **_settings("chunk_size_feed_forward", "unused", "chunks have the numbers of the whole"),
    **_settings("dtype torch_dtype", "unused", "weights are read as 32-bit floats"),
    **_settings(
        "output_hidden_states output_attentions return_dict", "unused", "answers go by name"
    ),
    **_settings("auto_map", "unused", "code of the folder runs with --trust-remote-code only"),
    **_settings(
        "_name_or_path name_or_path _commit_hash transformers_version custom_pipelines language "
        "finetuning_task task_specific_params gradient_checkpointing use_cache torchscript "
        "use_bfloat16 tf_legacy_loss attn_implementation _attn_implementation "
        "_attn_implementation_internal _attn_implementation_autoset experts_implementation "
        "reference_compile use_return_dict output_past tie_encoder_decoder",
        "unused",
        "concerns training, speed or other tasks",
    ),
    **_settings(
        "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers "
        "pooler_size_per_head pooler_type model_name layer_norm_type vocab gradient_clip "
        "tie_weights_ down_scale_factor gap_size num_memory_blocks net_structure_type z_steps "
        "repad_logits_with_grad deterministic_flash_attn initializer_cutoff_factor",
        "unused",
        "no class of Transformers reads it",
    ),
    **_settings(
        "cross_attention_hidden_size prefix decoder_start_token_id forced_bos_token_id "
        "forced_eos_token_id suppress_tokens begin_suppress_tokens max_length min_length do_sample "
        "early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p "
        "typical_p repetition_penalty length_penalty no_repeat_ngram_size bad_words_ids "
        "encoder_no_repeat_ngram_size num_return_sequences output_scores return_dict_in_generate "
        "remove_invalid_values exponential_decay_length_penalty",
        "unused",
        "concerns the generation of texts",
    ),
}
_IN_FILE = "tokenizer.json of the bundle"
# Keys of tokenizer_config.json, and arguments of the tokenizers' classes.
TOKENIZER: Table = {
    **_settings(
        "vocab vocab_file merges merges_file tokenizer_file tokenizer_object bos_token eos_token "
        "unk_token sep_token pad_token cls_token mask_token additional_special_tokens "
        "extra_special_tokens model_specific_special_tokens added_tokens_decoder do_lower_case "
        "strip_accents tokenize_chinese_chars add_prefix_space trim_offsets add_bos_token "
        "add_eos_token keep_accents remove_space split_by_punct vocab_type errors unk_id legacy "
        "do_lowercase_and_remove_accent do_lowercase unk_token_id clean_text spm_file "
        "language_codes post_processor add_dummy_prefix unk_index bos_index sep special_tokens",
        "carried",
        _IN_FILE,
    ),
    **_settings("model_max_length max_len", "carried", "the manifest's max_length"),
    **_settings("model_input_names", "carried", "the manifest's tokenizer.inputs"),
    **_settings(
        "truncation_side",
        "refused",
        "artifacts cut long texts at their end: save the tokenizer with truncation_side='right'",
        (None, "right"),
    ),
    **_settings(
        "never_split",
        "refused",
        "fast tokenizers split them: add them with tokenizer.add_tokens()",
        _UNSET,
    ),
    **_settings(
        "do_basic_tokenize do_word_tokenize do_subword_tokenize",
        "refused",
        "fast tokenizers cannot leave this step out",
        (None, True),
    ),
    **_settings(
        "word_tokenizer_type",
        "refused",
        "only tokenizers with a tokenizer.json are supported",
        (None, "basic"),
    ),
    **_settings(
        "subword_tokenizer_type",
        "refused",
        "only tokenizers with a tokenizer.json are supported",
        (None, "wordpiece"),
    ),
    **_settings(
        "split_special_tokens",
        "refused",
        "special tokens in a text would be read in pieces, which no artifact's tokenizer does",
        _UNSET,
    ),
    **_settings(
        "wordpieces_prefix", "refused", "Transformers' class has no other prefix", (None, "##")
    ),
    **_settings("sp_model_kwargs", "refused", "sampled tokens differ each time", _UNSET),
    **_settings("padding_side", "unused", "a text runs alone, and artifacts pad on the right"),
    **_settings(
        "max_length stride truncation_strategy padding pad_to_multiple_of pad_token_type_id "
        "truncation _json_truncation _json_padding tokenizer_truncation tokenizer_padding",
        "unused",
        "a text is cut at the bundle's max_length and padded to the artifact's length",
    ),
    **_settings("auto_map", "unused", "code of the folder runs with --trust-remote-code only"),
    **_settings("tokenizer_class backend processor_class", "applied", "by AutoTokenizer"),
    **_settings(
        "chat_template clean_up_tokenization_spaces spaces_between_special_tokens "
        "use_default_system_prompt name_or_path special_tokens_map_file from_slow is_local "
        "local_files_only use_fast fix_mistral_regex tokenizer_version verbose response_schema "
        "_commit_hash _spm_precompiled_charsmap lang2id id2lang n_langs "
        "adapter_path audio_token image_token video_token files_loaded init_inputs "
        "response_template chat_control_tokens "
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
        "unused",
        "changes no token of a text",
    ),
    **_settings(
        "task max_entity_length max_mention_length entity_token_1 entity_token_2 "
        "entity_1_token entity_2_token entity_unk_token "
        "entity_pad_token entity_mask_token entity_mask2_token entity_vocab entity_vocab_file "
        "only_label_first_subword cls_token_box sep_token_box pad_token_box pad_token_label "
        "tags_dict max_depth max_width pad_width",
        "unused",
        "concerns entities or boxes, which a plain text does not have",
    ),
}
_OTHER_VECTORS = "its vectors would not be those of sentence-transformers"
# Keys of config_sentence_transformers.json.
SENTENCE_TRANSFORMERS: Table = {
    **_settings("prompts default_prompt_name", "applied", "the default prompt: tokenizer.json"),
    **_settings("similarity_fn_name", "carried", "the manifest's embedding.similarity"),
    **_settings("truncate_dim", "refused", _OTHER_VECTORS, _UNSET),
    **_settings(
        "model_type",
        "refused",
        "only folders of SentenceTransformer are supported",
        (None, "SentenceTransformer"),
    ),
    **_settings("__version__ use_auth_token backend", "unused", "changes no vector"),
}
# Keys of sentence_bert_config.json.
TRANSFORMER: Table = {
    **_settings("max_seq_length", "carried", "the manifest's max_length"),
    **_settings("do_lower_case", "applied", "tokenizer.json"),
    **_settings(
        "tokenizer_args config_args processor_kwargs processing_kwargs", "refused", "", _UNSET
    ),
    **_settings("model_args config_kwargs model_kwargs message_format", "refused", "", _UNSET),
    **_settings("tokenizer_name_or_path", "refused", "save the tokenizer in the folder", _UNSET),
    **_settings("mask_prompt", "refused", _OTHER_VECTORS, _UNSET),
    **_settings(
        "transformer_task", "refused", "only encoders are supported", (None, "feature-extraction")
    ),
    **_settings(
        "modality_config module_output_name", "unused", "a text's last hidden states are read"
    ),
    **_settings("unpad_inputs cache_dir backend", "unused", "changes no vector"),
}
# Keys of a Pooling module's config.json.
POOLING: Table = {
    **_settings("pooling_mode", "applied", "part of every artifact"),
    **_settings(
        "pooling_mode_cls_token pooling_mode_mean_tokens", "applied", "part of every artifact"
    ),
    **_settings(
        "pooling_mode_max_tokens pooling_mode_mean_sqrt_len_tokens "
        "pooling_mode_weightedmean_tokens pooling_mode_lasttoken",
        "refused",
        "only mean or cls",
        _UNSET,
    ),
    **_settings("include_prompt", "applied", "part of every artifact"),
    **_settings(
        "word_embedding_dimension embedding_dimension", "unused", "the encoder's own width"
    ),
}
# Keys of a Dense module's config.json.
DENSE: Table = {
    **_settings(
        "in_features out_features bias activation_function", "applied", "part of every artifact"
    ),
    **_settings("module_input_name", "refused", _OTHER_VECTORS, (None, "sentence_embedding")),
    **_settings("module_output_name", "refused", _OTHER_VECTORS, (None, "sentence_embedding")),
}
NORMALIZE: Table = {
    **_settings("module_input_name", "refused", _OTHER_VECTORS, (None, "sentence_embedding")),
    **_settings("module_output_name", "refused", _OTHER_VECTORS, (None, "sentence_embedding")),
}


def check_settings(
    values: Mapping[str, Any], table: Table, *, file: Path, reads: Collection[str] = ()
) -> None:
    """Raise CheckpointError for a refused setting; report unknown keys on stderr.

    reads: keys declared by the architecture's configuration class, which its model reads.
    """
    unknown = []
    for name, value in values.items():
        setting = table.get(name)
        if setting is None:
            unknown += [] if name in reads else [name]
        elif setting.handling == "refused" and value not in setting.harmless:
            # A model such as ESM declares its own kinds of positions and reads this key.
            if name in reads and name == "position_embedding_type":
                continue
            reason = f": {setting.why}" if setting.why else ""
            raise CheckpointError(f"{file}: {name} = {_shown(value)} is not supported{reason}")
    if unknown:
        say(f"{file}: {_listed(unknown)} not read by Transformers' class, so nothing carries it")


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object from a checkpoint folder; raises CheckpointError for anything else."""
    values = read_json(file)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} must hold an object, and holds {type(values).__name__}")
    return values


def read_json(file: Path) -> Any:
    """Read a JSON file; raises CheckpointError when it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error})") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{file} is not valid JSON ({reason})") from None


def inside(file: Path, folder: Path, name: Any) -> Path:
    """Return the path `name` in `folder`, as given in `file`; raises CheckpointError if outside."""
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{file} points outside its folder: {_shown(name)}")
    return folder / name


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(names: Iterable[str]) -> str:
    shown = sorted(map(str, names))
    verb = "is" if len(shown) == 1 else "are"
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return f"{', '.join(shown[:5])}{more} {verb}"
