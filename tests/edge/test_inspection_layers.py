"""Names of weights, as three converters leave them, and the layers they tell."""

from __future__ import annotations

import pytest

from edge.inspection.layers import LayerFinder, Operation, in_order, layer_of, readable


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("bert.encoder.layer.11.output.dense.weight", "layer 11"),
        ("distilbert.transformer.layer.0.ffn.lin1.bias", "layer 0"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight", "layer 0"),
        ("model.layers.3.attn.Wqkv.weight", "layer 3"),
        ("p_model_bert_encoder_layer_7_attention_self_query_weight_to_fp16", "layer 7"),
        ("bert.encoder.5.attention.self", "layer 5"),
        ("deberta.encoder.rel_embeddings.weight", "embeddings"),
        ("p_model_bert_embeddings_layernorm_weight", "embeddings"),
        ("pre_classifier.weight", "head"),
        ("bert.pooler.dense.bias", "head"),
        ("cls.predictions.transform.dense.weight", "head"),
        ("qa_outputs.bias", "head"),
        ("val_47_quantized", "other"),
        ("layer_norm_12", "other"),
        ("sentence_embedding", "other"),
    ],
)
def test_names_tell_layers(name: str, layer: str) -> None:
    assert layer_of(name) == layer


def test_layers_are_in_the_order_they_run() -> None:
    names = ["structure", "layer 10", "other", "head", "layer 2", "embeddings"]
    expected = ["embeddings", "layer 2", "layer 10", "head", "other", "structure"]
    assert list(in_order(dict.fromkeys(names, 1))) == expected


def test_litert_names_become_module_names() -> None:
    fused = (
        "c.graph.ExportView/t.Bert_model/t.Encoder_encoder/t.Layer_4/n.LayerNorm_LayerNorm;;"
        "c.graph.ExportView/t.Bert_model/t.Encoder_encoder/t.Layer_5/n.Linear_query;1"
    )
    assert readable(fused) == "encoder.5.query"
    assert readable("arith.constant35") == "arith.constant35"


def test_a_nameless_weight_is_where_its_products_go() -> None:
    places = LayerFinder(
        [
            Operation(["x", "val_1"], ["y"]),
            Operation(["y"], ["z"]),
            Operation(["z", "bert.encoder.layer.1.output.dense.bias"], ["end"]),
        ]
    )
    assert places.locate("val_1", "val_1") == (
        "val_1 (bert.encoder.layer.1.output.dense)",
        "layer 1",
    )
    assert places.locate("lost", "lost") == ("lost", "other")
