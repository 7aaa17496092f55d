from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.student import StudentSpec, parse_spec
from distill.students import Student, Teacher, build_student
from edge.data import Table, read_table
from edge.errors import CheckpointError, ConfigError, DataError, UserError
from tests.distill.conftest import open_teacher

TABLE = Table("data.tsv", ["fine film", "poor film"], None, ["1", "0"])
# Architecture -> the name of its list of layers.
PREFIXES = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "electra": "electra.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
}


def make(spec: str, teacher: Teacher | None, table: Table = TABLE, seed: int = 0) -> Student:
    return build_student(parse_spec(spec), teacher, table, seed=seed)


@pytest.fixture(scope="module")
def teacher(checkpoint: Path) -> Teacher:
    return open_teacher(checkpoint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layers=3", {"layers": 3}),
        ("layers=0,2,4", {"layers": (0, 2, 4)}),
        ("layers=0,2,hidden=128", {"layers": (0, 2), "hidden": 128}),
        ("layers=3,init=random", {"layers": 3, "init": "random"}),
        ("hidden=8,heads=2,intermediate=16", {"hidden": 8, "heads": 2, "intermediate": 16}),
    ],
)
def test_specs(text: str, expected: dict[str, Any]) -> None:
    assert parse_spec(text) == StudentSpec(**expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer=3", "unknown student key 'layer': did you mean 'layers'"),
        ("layers=3,hiden=8", "unknown student key 'hiden': did you mean 'hidden'"),
        ("source=x", "unknown student key 'source'"),
        ("layers=three", "layers=three is not a number of layers"),
        ("layers=3/2", "layers=3/2 is not a number of layers"),
        ("layers=1/0", "layers=1/0 is not a number of layers"),
        ("layers=0", "student 'layers=0': layers"),
        ("layers=2,init=teachr", "init: .*'teacher', 'slice', 'svd' or 'random'"),
        ("hidden=wide", "student 'hidden=wide': hidden: "),
        ("layers", "student 'layers' needs key=value"),
        ("layers:3", "student 'layers:3' needs key=value"),
        ("3", "student '3' needs key=value"),
        ("3,hidden=8", "student '3,hidden=8' needs key=value"),
        (",layers=3", "unknown student key ''"),
    ],
)
def test_bad_specs(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_spec(text)


@pytest.mark.parametrize("model_type", sorted(PREFIXES))
def test_layers_are_copied_in_every_architecture(
    model_type: str, make_checkpoint: Callable[..., Path]
) -> None:
    import torch

    teacher = open_teacher(make_checkpoint(model_type))
    student = make("layers=0,3", teacher)
    assert student.copied_layers == (0, 3)
    source, prefix = teacher.model.state_dict(), re.escape(PREFIXES[model_type])
    renumbered = 0
    for name, value in student.model.state_dict().items():
        ours = re.sub(rf"{prefix}\.1\.", f"{PREFIXES[model_type]}.3.", name)
        renumbered += ours != name
        assert torch.equal(value, source[ours]), name
        assert value.dtype == torch.float32
        assert value.data_ptr() != source[ours].data_ptr()
    assert renumbered > 8
    with torch.no_grad():
        logits = student.model.eval()(input_ids=torch.tensor([[2, 6, 8, 3]])).logits
    assert logits.shape == (1, 2)


def test_a_student_of_all_layers_answers_like_its_teacher(teacher: Teacher) -> None:
    import torch

    student = make("layers=4", teacher)
    ids = torch.tensor([[2, 6, 8, 3]])
    with torch.no_grad():
        ours = student.model.eval()(input_ids=ids).logits
        assert torch.equal(ours, teacher.model(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("spec", "copied"),
    [("layers=2", (0, 3)), ("layers=1/2", (0, 3)), ("layers=1/9", (0,)), ("layers=3", (0, 2, 3))],
)
def test_layers_are_chosen_evenly(teacher: Teacher, spec: str, copied: tuple[int, ...]) -> None:
    student = make(spec, teacher)
    assert student.copied_layers == copied
    assert student.model.config.num_hidden_layers == len(copied)


@pytest.mark.parametrize("model_type", sorted(PREFIXES))
def test_a_narrower_student_keeps_proportions(
    model_type: str, make_checkpoint: Callable[..., Path]
) -> None:
    teacher = open_teacher(make_checkpoint(model_type))
    student = make("layers=2,hidden=8", teacher)
    config = student.model.config
    assert student.copied_layers is None
    wide = config.hidden_dim if model_type == "distilbert" else config.intermediate_size
    assert (config.hidden_size, config.num_attention_heads, wide) == (8, 1, 16)


def test_random_students_depend_on_the_seed_alone(teacher: Teacher) -> None:
    import torch

    first, again, other = (
        make("layers=2,init=random", teacher, seed=seed).model.classifier.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, teacher.model.classifier.weight)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("layers=5", "the teacher has 4 layers; ask for at most 4, or add init=random"),
        ("layers=0,4", "student layer 4 does not exist: the teacher has layers 0 to 3"),
        ("layers=2,hidden=9,heads=2", "hidden=9 cannot be split into 2 heads"),
    ],
)
def test_impossible_shapes(teacher: Teacher, spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(spec, teacher)


def test_layers_without_a_teacher() -> None:
    with pytest.raises(ConfigError, match="name it with --teacher"):
        make("layers=2", None)


def test_shared_layers_cannot_be_skipped(tmp_path: Path, checkpoint: Path) -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification, AutoTokenizer

    config = AlbertConfig(
        vocab_size=17, embedding_size=8, hidden_size=8, num_attention_heads=2, intermediate_size=16,
        num_hidden_layers=3, max_position_embeddings=32,
    )  # fmt: skip
    AlbertForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="albert keeps no list of its 3 layers"):
        make("layers=2", open_teacher(tmp_path))


def test_a_checkpoint_keeps_its_weights(
    teacher: Teacher, make_checkpoint: Callable[..., Path]
) -> None:
    import torch
    from safetensors.torch import load_file

    folder = make_checkpoint("distilbert", n_layers=2)
    student = make(str(folder), teacher)
    saved = load_file(folder / "model.safetensors")
    assert all(
        torch.equal(value, saved[name]) for name, value in student.model.state_dict().items()
    )
    assert student.task.labels == ("negative", "positive")


def test_an_encoder_without_a_head_gets_one_for_the_labels_of_the_data(
    checkpoint: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(checkpoint).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["id2label"], values["label2id"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    table = Table("data.tsv", ["a", "b", "c"], None, ["red", "blue", "green"])
    student = make(str(tmp_path), None, table)
    assert student.task.labels == ("blue", "green", "red")
    assert student.model.classifier.weight.shape == (3, 16)
    original = AutoModel.from_pretrained(checkpoint).state_dict()
    name = "encoder.layer.0.output.dense.weight"
    assert torch.equal(student.model.bert.state_dict()[name], original[name])


def test_an_encoder_of_three_labels_answers_questions_by_a_start_and_an_end(
    checkpoint: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    AutoModel.from_pretrained(checkpoint).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.num_labels = 3
    config.save_pretrained(tmp_path)
    table = Table("data.json", ["a"], ["b"], [["b"]])
    spec = parse_spec(str(tmp_path))
    student = build_student(spec, None, table, seed=0, task="question-answering")
    assert student.model.qa_outputs.weight.shape == (2, 16)


@pytest.mark.parametrize(
    ("column", "targets", "labels", "problem"),
    [
        ("label", ("0", "2"), ("LABEL_0", "LABEL_1", "LABEL_2"), "single_label_classification"),
        ("label", ("0.5", "-2"), ("LABEL_0",), "regression"),
        ("score", ("0", "2"), ("LABEL_0",), "regression"),
        ("score", ("good", "bad"), ("bad", "good"), "single_label_classification"),
        ("label", ("good", "bad"), ("bad", "good"), "single_label_classification"),
    ],
)
def test_a_configuration_takes_its_labels_from_the_data(
    checkpoint: Path,
    tmp_path: Path,
    column: str,
    targets: tuple[str, str],
    labels: tuple[str, ...],
    problem: str,
) -> None:
    from transformers import AutoTokenizer, BertConfig

    data = tmp_path / "data.tsv"
    data.write_text(f"text\t{column}\na\t{targets[0]}\nb\t{targets[1]}\n")

    config = BertConfig(
        vocab_size=17, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "config.json"):
        student = make(str(source), None, read_table(data))
        assert student.task.labels == labels
        assert student.model.config.problem_type == problem
        assert student.model.num_labels == len(labels)


def test_too_many_labels_are_a_wrong_column(checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig

    BertConfig(vocab_size=17).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    names = [f"text {i}" for i in range(1001)]
    with pytest.raises(DataError, match="has 1001 labels: is --label-column the right one"):
        make(str(tmp_path), None, Table("d", names, None, names))


def test_a_configuration_without_tokenizer_or_teacher(tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig(vocab_size=17).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        make(str(tmp_path), None)


def test_too_small_a_vocabulary(checkpoint: Path, tmp_path: Path, teacher: Teacher) -> None:
    from transformers import BertConfig

    BertConfig(vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)\
        .save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(CheckpointError, match="embeds 5 tokens where its tokenizer has 17"):
        make(str(tmp_path), teacher)


def test_teacher_and_student_must_agree_on_labels(
    teacher: Teacher, make_checkpoint: Callable[..., Path]
) -> None:
    swapped = make_checkpoint("bert", labels=("positive", "negative"))
    with pytest.raises(CheckpointError, match="in the same order"):
        make(str(swapped), teacher)


def test_teacher_and_student_must_agree_on_the_vocabulary(
    teacher: Teacher, make_checkpoint: Callable[..., Path]
) -> None:
    folder = make_checkpoint("bert", seed=2)
    text = (folder / "tokenizer.json").read_text().replace('"music"', '"sound"')
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match="have different vocabularies"):
        make(str(folder), teacher)


def test_a_student_that_is_not_there(teacher: Teacher) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        make("./no-such-folder", teacher)
