"""Tiny random checkpoints that answer differently to different texts; any test may build one."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = (
    "the",
    "film",
    "was",
    "a",
    "good",
    "bad",
    "of",
    "and",
    "plot",
    "who",
    "is",
    "not",
    "great",
)
VOCABULARY = (
    *_SPECIAL,
    *_WORDS,
    *string.ascii_lowercase[1:],
    *(f"##{letter}" for letter in string.ascii_lowercase),
    *string.digits,
    *string.punctuation,
)
MAX_POSITIONS = 64
_SPECIAL_IDS = {
    "pad_token_id": 0,
    **{f"{name}_token_id": 2 for name in ("bos", "cls")},
    **{f"{name}_token_id": 3 for name in ("eos", "sep")},
}
_SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_GROUPS = ("q", "k", "v", "intermediate", "output")
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": _SIZE,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "roberta": _SIZE,
    "xlm-roberta": _SIZE,
    "camembert": _SIZE,
    "electra": {**_SIZE, "embedding_size": 16},
    "albert": {**_SIZE, "embedding_size": 16},
    "mobilebert": {**_SIZE, "embedding_size": 16, "intra_bottleneck_size": 16},
    "mpnet": _SIZE,
    "squeezebert": {
        **_SIZE,
        "embedding_size": 32,
        "post_attention_groups": 1,
        **{f"{name}_groups": 2 for name in _GROUPS},
    },
    "convbert": {**_SIZE, "embedding_size": 32, "head_ratio": 1, "conv_kernel_size": 3},
    "modernbert": {
        **_SIZE,
        "num_hidden_layers": 3,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
    },
    "deberta-v2": {
        **_SIZE,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "bilstm": {"embedding_size": 32, "lstm_size": 32, "classifier_size": 32},
}
# Further encoders of Transformers, which scripts/architectures.py tries; no test builds them all.
OTHER_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "big_bird": {**_SIZE, "attention_type": "original_full"},
    "data2vec-text": _SIZE,
    "deberta": {**_SIZE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "ernie": _SIZE,
    "esm": {**_SIZE, "position_embedding_type": "absolute", "token_dropout": False},
    "eurobert": {**_SIZE, "num_key_value_heads": 2, "head_dim": 16},
    "flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 2},
    "ibert": _SIZE,
    "jina_embeddings_v3": _SIZE,
    "luke": {**_SIZE, "entity_vocab_size": 20, "entity_emb_size": 16},
    "megatron-bert": _SIZE,
    "mra": _SIZE,
    "nomic_bert": _SIZE,
    "rembert": {**_SIZE, "input_embedding_size": 16, "output_embedding_size": 16},
    "roberta-prelayernorm": _SIZE,
    "roformer": {**_SIZE, "embedding_size": 32},
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2},
    "xlm-roberta-xl": _SIZE,
    "xmod": {**_SIZE, "languages": ["en_XX"], "default_language": "en_XX"},
}
_WITHOUT_TOKEN_TYPES = (
    *("distilbert", "roberta", "xlm-roberta", "camembert"),
    *("mpnet", "modernbert", "bilstm"),
)


def tiny_checkpoint(
    folder: Path,
    architecture: str = "bert",
    *,
    task: str = "text-classification",
    labels: Sequence[str] = ("negative", "neutral", "positive"),
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Save a random model of 2 layers and width 32, with its tokenizer, to `folder`.

    architecture: one of ARCHITECTURES or OTHER_ARCHITECTURES.
    task: Transformers' own name; the labels are those of a
    classification. changes: of the model's configuration. The same arguments give the same
    weights.
    """
    import torch
    import transformers

    from edge.models import register
    from edge.tasks import TASKS, get_task

    assert task in TASKS
    register(architecture)
    named = {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: index for index, name in enumerate(labels)},
    }
    config = transformers.AutoConfig.for_model(
        architecture,
        vocab_size=len(VOCABULARY),
        max_position_embeddings=MAX_POSITIONS,
        **_SPECIAL_IDS,
        # Ten times the usual spread: the answers to two texts differ by more than int8 loses.
        initializer_range=0.2,
        **(named if task.endswith("-classification") else {}),
        **{**(ARCHITECTURES | OTHER_ARCHITECTURES)[architecture], **changes},
    )
    auto = getattr(transformers, get_task(task).auto_class)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config)
        # A fresh model's biases are all zeros and its norms ones, which converters store once.
        for parameter in model.parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.1)
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    without = architecture in OTHER_ARCHITECTURES and not getattr(config, "type_vocab_size", 0)
    if architecture in _WITHOUT_TOKEN_TYPES or without:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer() -> Any:
    """Words, letters and punctuation as word pieces, as in lower-case BERT."""
    import transformers

    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    return transformers.BertTokenizerFast(
        vocab=vocabulary, do_lower_case=True, model_max_length=MAX_POSITIONS
    )
