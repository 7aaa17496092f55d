"""Students of another architecture than their teacher's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.recipe.student import StudentSpec, parse_spec
from distill.students import Student, Teacher, build_student
from edge.data import Table
from edge.errors import ConfigError, UserError
from tests.distill.conftest import open_teacher

TABLE = Table("data.tsv", ["fine film", "poor film"], None, ["1", "0"])


def make(spec: str, teacher: Teacher) -> Student:
    return build_student(parse_spec(spec), teacher, TABLE, seed=0)


@pytest.fixture(scope="module")
def teacher(checkpoint: Path) -> Teacher:
    return open_teacher(checkpoint)


@pytest.fixture(scope="module")
def mobile(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Teacher:
    """A MobileBERT with inverted bottlenecks that guesses hidden tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    config = AutoConfig.for_model(
        "mobilebert", vocab_size=17, max_position_embeddings=32, hidden_size=16, embedding_size=8,
        num_hidden_layers=3, num_attention_heads=2, intra_bottleneck_size=32, intermediate_size=64,
        num_feedforward_networks=1, normalization_type="layer_norm", hidden_act="gelu",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("inverted")
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(make_checkpoint()).save_pretrained(folder)
    return open_teacher(folder)


def test_specs() -> None:
    assert parse_spec("architecture=bilstm,hidden=150,embedding=64") == StudentSpec(
        architecture="bilstm", hidden=150, embedding=64
    )
    assert parse_spec("architecture=cnn,kernel_widths=2,3,hidden_dropout_prob=0.3").settings == {
        "kernel_widths": (2, 3),
        "hidden_dropout_prob": 0.3,
    }
    assert parse_spec("architecture=mobilebert,trigram_input=false,hidden_act=relu").settings == {
        "trigram_input": False,
        "hidden_act": "relu",
    }


@pytest.mark.parametrize(
    ("model_type", "auto"),
    [
        ("bert", "AutoModelForMaskedLM"),
        ("bert", "AutoModelForTokenClassification"),
        ("bert", "AutoModelForQuestionAnswering"),
        ("roberta", "AutoModelForMaskedLM"),
        ("electra", "AutoModelForTokenClassification"),
        ("bert", "AutoModelForSequenceClassification"),
    ],
)
def test_distilbert_of_all_layers_is_its_teacher(
    make_checkpoint: Callable[..., Path], model_type: str, auto: str
) -> None:
    """Hidden states, and answers where both have the same head, at texts with padding."""
    import torch

    sizes = {"embedding_size": 16} if model_type == "electra" else {}
    teacher = open_teacher(make_checkpoint(model_type, auto=auto, **sizes))
    student = make("architecture=distilbert,layers=0,1,2,3", teacher)
    assert student.model.config.model_type == "distilbert"
    assert student.copied_layers == (0, 1, 2, 3)
    assert student.model.config.max_position_embeddings == 32
    pad = teacher.model.config.pad_token_id
    ids = torch.tensor([[2, 6, 8, 9, 3], [2, 7, 3, pad, pad]])
    given = {"input_ids": ids, "attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])}
    real = given["attention_mask"].bool()
    with torch.no_grad():
        ours = student.model.eval()(**given, output_hidden_states=True)
        theirs = teacher.model(**given, output_hidden_states=True)
    pairs = list(zip(ours.hidden_states, theirs.hidden_states, strict=True))
    if "Sequence" not in auto:
        heads = ("start_logits", "end_logits") if "Question" in auto else ("logits",)
        pairs += [(ours[name], theirs[name]) for name in heads]
    for a, b in pairs:
        torch.testing.assert_close(a[real], b[real], rtol=1e-5, atol=1e-5)


def test_distilbert_takes_layers_and_shape_of_its_teacher(teacher: Teacher) -> None:
    import torch

    student = make("architecture=distilbert,layers=1/2", teacher)
    assert student.copied_layers == (0, 3)
    config = student.model.config
    assert (config.n_layers, config.dim, config.n_heads, config.hidden_dim) == (2, 16, 2, 32)
    assert config.id2label == {0: "negative", 1: "positive"}
    layer = teacher.model.bert.encoder.layer[3].intermediate.dense.weight
    assert torch.equal(student.model.distilbert.transformer.layer[1].ffn.lin1.weight, layer)
    names = [name for name, _ in student.model.named_parameters()]
    assert not any("token_type" in name or "pooler" in name for name in names)
    narrow = make("architecture=distilbert,layers=2,hidden=8,dropout=0.3", teacher).model.config
    assert (narrow.dim, narrow.hidden_dim, narrow.dropout) == (8, 16, 0.3)
    bare = make("architecture=distilbert,layers=1/2,init=random", teacher)
    assert not torch.equal(bare.model.distilbert.transformer.layer[1].ffn.lin1.weight, layer)
    assert bare.copied_layers is None


def test_a_teacher_that_is_not_like_bert(mobile: Teacher) -> None:
    with pytest.raises(UserError, match="mobilebert has not the modules that DistilBERT takes"):
        make("architecture=distilbert", mobile)


@pytest.mark.parametrize("name", ["bilstm", "cnn"])
def test_word_embeddings_are_the_best_of_their_width(teacher: Teacher, name: str) -> None:
    import numpy as np

    student = make(f"architecture={name},hidden=6,embedding=5", teacher)
    config = student.model.config
    assert config.embedding_size == 5
    assert (config.lstm_size if name == "bilstm" else config.filters) == 6
    assert (config.vocab_size, config.max_position_embeddings) == (17, 32)
    assert student.task.labels == ("negative", "positive")
    table = teacher.model.get_input_embeddings().weight.detach().double().numpy()
    found = student.model.get_input_embeddings().weight.detach().double().numpy()
    u, s, _ = np.linalg.svd(table, full_matrices=False)
    np.testing.assert_allclose(found @ found.T, u[:, :5] * s[:5] ** 2 @ u[:, :5].T, atol=1e-5)


def test_wider_embeddings_begin_with_the_teacher_s(teacher: Teacher) -> None:
    import torch

    found = make("architecture=bilstm,embedding=20", teacher).model.get_input_embeddings().weight
    table = teacher.model.get_input_embeddings().weight
    torch.testing.assert_close(found[:, :16] @ found[:, :16].T, table @ table.T)
    assert found[1:, 16:].abs().min() > 0
    random = make("architecture=bilstm,embedding=16,init=random", teacher)
    assert not torch.allclose(random.model.get_input_embeddings().weight, table)


def test_mobilebert_shares_what_lies_outside_its_layers(mobile: Teacher) -> None:
    import torch

    student = make("architecture=mobilebert,intra_bottleneck_size=8,intermediate=16", mobile)
    config = student.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (3, 16, 2)
    assert (config.normalization_type, config.num_feedforward_networks) == ("no_norm", 4)
    assert (config.true_hidden_size, config.intermediate_size, config.hidden_act) == (8, 16, "relu")
    ours, theirs = student.model.state_dict(), mobile.model.state_dict()
    shared = {
        name for name in ours if name in theirs and torch.equal(ours[name], theirs[name])
    }  # fmt: skip
    assert {name for name in shared if "embeddings" in name and "LayerNorm" not in name} == {
        name for name in ours if "embeddings" in name and "LayerNorm" not in name
    }
    assert "cls.predictions.transform.dense.weight" in shared
    assert not any("layer.0" in name and "query.weight" in name for name in shared)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("architecture=bilstn", "unknown architecture 'bilstn': did you mean 'bilstm'"),
        ("architecture=bilstm,hiden=8", "unknown student key of bilstm 'hiden': did you mean"),
        ("architecture=distilbert,droput=1", "key of distilbert 'droput': did you mean 'dropout'"),
        ("architecture=bilstm,layers=0,2", "bilstm takes none over: give their number"),
        ("architecture=cnn,heads=2", "cnn has no heads: its sizes are hidden, embedding"),
        ("architecture=cnn,init=svd", "for architecture=cnn use init=teacher or init=random"),
        ("architecture=mobilebert,hidden=16,heads=3", "128 units of attention cannot be split"),
        ("embedding=4", "bert reads its word embeddings at full width"),
        ("dropout=0.1", "unknown student key 'dropout'"),
    ],
)
def test_impossible_specs(teacher: Teacher, spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(spec, teacher)


def test_a_cnn_has_no_tokens_to_answer_for(mobile: Teacher) -> None:
    with pytest.raises(ConfigError, match="a student of this shape cannot be built"):
        make("architecture=cnn", mobile)


def test_a_student_that_reads_less_is_said_so(
    taught: Path, make_checkpoint: Callable[..., Path], data: dict[str, Path], tmp_path: Path
) -> None:
    from distill import DistillConfig, distill

    short = make_checkpoint("distilbert", n_layers=1)
    values = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**values, "max_position_embeddings": 12}))
    run = {
        "teacher": str(taught),
        "student": str(short / "config.json"),
        "train": str(data["train"]),
        "recipe": "kd",
        "max_steps": 1,
        "output": tmp_path / "student",
    }
    with pytest.raises(ConfigError, match="the student reads 12 tokens where its teacher reads 32"):
        distill(DistillConfig.build(run))
    distill(DistillConfig.build({**run, "max_length": 12}))


def test_both_kinds_of_small_students_learn_by_the_recipe_bilstm(
    taught: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill import DistillConfig, distill

    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    for spec in ("architecture=bilstm,hidden=8", "architecture=cnn,hidden=8"):
        result = distill(
            DistillConfig(
                teacher=str(taught),
                student=spec,
                recipe="bilstm",
                train=str(data["train"]),
                eval=str(data["eval"]),
                output=tmp_path / spec.split("=")[1],
                epochs=1,
                batch_size=8,
                learning_rate=5e-3,
            )
        )
        assert result.value is not None and result.value > 0.9, spec
