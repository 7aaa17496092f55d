"""Sentence embeddings: a teacher's vectors in fewer layers and numbers, as others read them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.objectives import OBJECTIVES, Batch, Setting, Shape
from distill.recipe.config import Stage
from distill.recipe.student import parse_spec
from distill.signals.capture import Signals
from distill.students.embedded import build_embedder, embed, sample_of
from distill.tasks.embeddings import directions
from distill.tasks.sentences import sentence_samples
from edge.checkpoint import load_model, load_tokenizer, open_checkpoint
from edge.data import Table
from edge.embeddings.encoder import SentenceEncoder
from edge.embeddings.head import SentenceHead
from edge.errors import ConfigError, DataError
from edge.tasks import get_task
from edge.tokenization import Tokenizer
from tests.distill.conftest import (
    BAD,
    GOOD,
    NEUTRAL,
    WORDS,
    distil_tiny,
    make_config,
    make_tokenizer,
    open_teacher,
    write_tsv,
)

SHAPE = Shape(layers=2, width=8, architecture="bert", attention=(2, 8))
GENERATOR = torch.Generator().manual_seed(1)


def write_sts(path: Path, count: int, *, seed: int) -> Path:
    """Texts of four words; their similarity, 0 to 4, is how many they share."""
    choose, rows = random.Random(seed), []
    for _ in range(count):
        first, kept = choose.choices(WORDS, k=4), choose.randrange(5)
        second = [*first[:kept], *choose.choices(WORDS, k=4 - kept)]
        choose.shuffle(second)
        shared = (Counter(first) & Counter(second)).total()
        rows.append((" ".join(first), " ".join(second), shared))
    return write_tsv(path, "sentence1 sentence2 score", rows)


def write_opinions(path: Path, count: int, *, seed: int) -> Path:
    """Texts are alike, 5 of 5, where their words of opinion are."""
    choose, rows = random.Random(seed), []
    for _ in range(count):
        labels = choose.choices((0, 1), k=2)
        texts = [f"{choose.choice(NEUTRAL)} {choose.choice((BAD, GOOD)[one])}" for one in labels]
        rows.append((*texts, 5 * (labels[0] == labels[1])))
    return write_tsv(path, "sentence1 sentence2 score", rows)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sts")
    plain = folder / "plain.txt"
    choose = random.Random(3)
    plain.write_text("".join(f"{' '.join(choose.choices(WORDS, k=5))}\n" for _ in range(96)))
    return {
        "train": write_sts(folder / "train.tsv", 96, seed=1),
        "eval": write_sts(folder / "eval.tsv", 80, seed=2),
        "plain": plain,
    }


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLS, a dense layer from 16 to 12, length 1, as our own writer writes it."""
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("embedder")
    torch.manual_seed(1)
    quiet: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = make_config("bert", initializer_range=0.3, **quiet)
    encoder = AutoModel.from_config(config)
    layer = nn.Linear(16, 12)
    SentenceEncoder(
        encoder, SentenceHead("cls", normalize=True, max_length=24), [(layer, "Tanh")]
    ).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


run = partial(distil_tiny, recipe="embedding", learning_rate=3e-3)


def closeness(ours: Tensor, theirs: Tensor) -> float:
    """The mean cosine of two models' vectors, seen from the middle of the latter."""
    return float(F.cosine_similarity(ours - theirs.mean(0), theirs - theirs.mean(0)).mean())


# What is written


def test_what_is_written_is_read_again(embedder: Path) -> None:
    found = open_checkpoint(embedder)
    assert found.task.name == "feature-extraction" and found.head is not None
    assert found.head.pooling == "cls" and found.head.normalize and found.head.max_length == 24
    (layer,) = found.head.projections
    assert (layer.sizes, layer.activation, layer.bias) == ((16, 12), "Tanh", True)
    model = load_model(found)
    ids = torch.tensor([[2, 5, 6, 3]])
    states = model.encoder(input_ids=ids, attention_mask=ids > 0).last_hidden_state[:, 0]
    expected = F.normalize(torch.tanh(model.layers[0][0](states)), dim=-1)
    answer = model(input_ids=ids, attention_mask=(ids > 0).long())["sentence_embedding"]
    torch.testing.assert_close(answer, expected)


def test_sentence_transformers_reads_it(embedder: Path) -> None:
    reason = "sentence-transformers is not installed"
    library = pytest.importorskip("sentence_transformers", reason=reason)
    texts = ["fine film", "sad long plot"]
    found = library.SentenceTransformer(str(embedder), device="cpu").encode(texts)
    np.testing.assert_allclose(found, embed(open_teacher(embedder), texts), atol=1e-5)


# Runs


def test_a_student_follows_its_teacher_s_vectors(
    embedder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    texts = files["plain"].read_text().splitlines()[:32]
    plain = {**files, "train": files["plain"]}
    run(embedder, plain, tmp_path / "start", max_steps=1, learning_rate=1e-9, student="layers=2")
    result = run(embedder, plain, tmp_path / "student", epochs=12, student="layers=2")
    assert result.metric == "spearman" and result.teacher_value is not None
    goal = embed(open_teacher(embedder), texts)
    vectors = (embed(open_teacher(tmp_path / name), texts) for name in ("start", "student"))
    before, after = (closeness(ours, goal) for ours in vectors)
    assert after > 0.7 and after > before + 0.2
    head = open_checkpoint(tmp_path / "student").head
    assert head is not None and head.pooling == "cls" and head.normalize and head.max_length == 24
    assert [layer.sizes for layer in head.projections] == [(16, 12)]


def test_vectors_are_cut(embedder: Path, files: dict[str, Path], tmp_path: Path) -> None:
    """From a cache as from the teacher itself; what is written is what was measured."""
    values: dict[str, Any] = {"student": "layers=3,embedding_dim=8", "epochs": 2}
    live = run(embedder, files, tmp_path / "live", **values)
    for name in ("filled", "again"):
        cached = run(embedder, files, tmp_path / name, **values, teacher_cache=tmp_path / "cache")
        assert cached.value == live.value
    written = [file for file in (tmp_path / "again").rglob("*") if file.is_file()]
    assert len({file.stat().st_mode for file in written}) == 1, "some may be read by others"
    found = open_teacher(tmp_path / "again")
    assert embed(found, ["fine film"]).shape == (1, 8)
    task = found.checkpoint.task
    reader = Tokenizer.of(found.tokenizer, folder=found.checkpoint.path)
    examples = task.examples(task.read(files["eval"]), reader, max_length=24)
    vectors = embed(
        found, [*task.read(files["eval"]).texts, *(task.read(files["eval"]).pairs or [])]
    )
    outputs = [{"sentence_embedding": vector.numpy()} for vector in vectors]
    assert examples.score(outputs)["spearman"] == pytest.approx(live.value, abs=1e-4)


def test_the_student_is_converted_with_its_head(
    embedder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    from converters import ConvertConfig, convert
    from edge.bundle import Bundle
    from edge.verify import verify

    values: dict[str, Any] = {"max_steps": 2, "student": "layers=1,embedding_dim=8"}
    run(embedder, files, tmp_path / "student", **values)
    config = {"source": str(tmp_path / "student"), "output": tmp_path / "bundle"}
    convert(ConvertConfig.build({**config, "format": ["onnx"], "seq_length": [16]}))
    bundle = Bundle.open(tmp_path / "bundle")
    embedding = bundle.manifest.embedding
    assert embedding is not None and embedding.pooling == "cls" and embedding.normalized
    checks = [check for artifact in verify(bundle) for check in artifact.verifications]
    assert checks and all(check.status == "passed" for check in checks)


def test_similarities_are_learned_without_a_teacher(files: dict[str, Path], tmp_path: Path) -> None:
    shape = tmp_path / "shape"
    make_config("bert", initializer_range=0.3, hidden_dropout_prob=0.0).save_pretrained(shape)
    make_tokenizer().save_pretrained(shape)
    for name, count in (("train", 96), ("eval", 48)):
        files = {**files, name: write_opinions(tmp_path / f"{name}.tsv", count, seed=count)}
    values: dict[str, Any] = {
        "recipe": "finetune",
        "task": "feature-extraction",
        "student": str(shape),
    }
    start = run(None, files, tmp_path / "start", **values, max_steps=1)
    result = run(None, files, tmp_path / "student", **values, epochs=8)
    assert start.value is not None and result.value is not None
    assert result.value > 0.7 > 0.4 > start.value


def test_a_student_of_a_sentence_folder_keeps_its_own(
    embedder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    run(embedder, files, tmp_path / "a", student=f"{embedder},embedding_dim=8", max_steps=1)
    head = open_checkpoint(tmp_path / "a").head
    assert head is not None
    assert [layer.sizes for layer in head.projections] == [(16, 12), (12, 8)]


# Building


def test_a_cut_keeps_what_matters_most(embedder: Path, files: dict[str, Path]) -> None:
    """All layers and fewer numbers: the vectors are the teacher's principal components."""
    teacher = open_teacher(embedder)
    table = get_task("feature-extraction").read(files["train"])
    student = build_embedder(parse_spec("embedding_dim=8"), teacher, table, seed=0)
    texts = sample_of(table)
    theirs, ours = embed(teacher, texts), embed(student, texts)
    # An oracle by another way: right singular vectors.
    axes = np.linalg.svd(theirs.numpy(), full_matrices=False)[2][:8]
    kept = theirs.numpy() @ axes.T
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    found = directions({"teacher": teacher}, student.model, table)["teacher"]
    assert np.allclose(np.abs(found.numpy() @ axes.T), np.eye(8), atol=1e-5)
    goal = F.normalize(theirs @ found.T, dim=-1)
    assert closeness(ours, goal) > 0.97
    assert np.allclose((goal @ goal.T).numpy(), kept @ kept.T, atol=1e-6)


def test_a_narrower_student_starts_towards_its_teacher(
    embedder: Path, files: dict[str, Path]
) -> None:
    teacher = open_teacher(embedder)
    table = get_task("feature-extraction").read(files["train"])
    student = build_embedder(parse_spec("layers=3,hidden=8"), teacher, table, seed=0)
    assert student.model.size == 8
    wanted = directions({"teacher": teacher}, student.model, table)["teacher"]
    texts = sample_of(table)
    goal = F.normalize(embed(teacher, texts) @ wanted.T, dim=-1)
    fitted = closeness(embed(student, texts), goal)
    student.model.layers[-1][0].reset_parameters()
    assert fitted > 0.3 + closeness(embed(student, texts), goal)


def test_a_distilbert_of_all_layers_embeds_as_its_teacher(
    embedder: Path, files: dict[str, Path]
) -> None:
    teacher = open_teacher(embedder)
    table = get_task("feature-extraction").read(files["train"])
    student = build_embedder(parse_spec("architecture=distilbert"), teacher, table, seed=0)
    texts = sample_of(table)[:8]
    torch.testing.assert_close(embed(student, texts), embed(teacher, texts), atol=1e-5, rtol=0)


def test_a_student_of_a_plain_encoder_pools_as_its_teacher(
    embedder: Path, make_checkpoint: Callable[..., Path], files: dict[str, Path]
) -> None:
    plain = make_checkpoint(auto="AutoModel")
    table = get_task("feature-extraction").read(files["train"])
    student = build_embedder(parse_spec(str(plain)), open_teacher(embedder), table, seed=0)
    assert student.model.description.pooling == "cls" and student.model.description.normalize
    assert student.model.size == 12


# Terms


def embedding_term(term: dict[str, Any], setting: Setting, ours: Any, theirs: Any) -> float:
    found = Stage.model_validate({"terms": [term]}).terms[0]
    labels = torch.tensor([0.5, float("nan")])
    batch = Batch(
        Signals({"sentence_embedding": ours}),
        {"teacher": Signals({"sentence_embedding": theirs})},
        labels,
        torch.ones(len(ours), 3),
        {"samples": torch.tensor(float(len(ours))), "labelled": torch.tensor(1.0)},
    )
    return float(OBJECTIVES[found.match](found, setting)(batch))


def test_shorter_vectors_follow_along_directions() -> None:
    ours, theirs = (torch.randn(4, n, generator=GENERATOR) for n in (2, 5))
    axes = torch.linalg.qr(torch.randn(5, 5, generator=GENERATOR))[0][:2]
    setting = Setting(SHAPE, SHAPE, None, "feature-extraction", directions={"teacher": axes})
    term = {"match": "logits", "loss": "mse"}
    goal = theirs @ axes.T
    found = embedding_term(term, setting, ours, theirs)
    assert found == pytest.approx(float((ours - goal).square().mean()), rel=1e-4)
    goal = F.normalize(goal, dim=-1)
    found = embedding_term(term, replace(setting, unit=True), ours, theirs)
    assert found == pytest.approx(float((ours - goal).square().mean()), rel=1e-4)
    with pytest.raises(ConfigError, match="vectors of 2 numbers cannot follow teacher's of 5"):
        embedding_term(term, Setting(SHAPE, SHAPE, None, "feature-extraction"), ours, theirs)


def test_cosines_are_held_against_similarities() -> None:
    vectors = torch.randn(4, 6, generator=GENERATOR)
    setting = Setting(SHAPE, None, None, "feature-extraction")
    found = embedding_term({"match": "labels"}, setting, vectors, vectors)
    cosine = float(F.cosine_similarity(vectors[0], vectors[1], dim=0))
    assert found == pytest.approx((cosine - 0.5) ** 2, rel=1e-4)


# Rows


@pytest.fixture(scope="module")
def reader(embedder: Path) -> Tokenizer:
    return Tokenizer.of(load_tokenizer(open_checkpoint(embedder)), folder=embedder)


def test_texts_of_a_row_are_inputs_of_their_own(reader: Tokenizer) -> None:
    table = Table("t", ["fine", "sad film"], ["great long plot", "poor"], ["5", None])
    found = sentence_samples(get_task("feature-extraction"), table, reader, max_length=8)
    assert len(found) == 2 and found.lengths.tolist() == [5, 4]
    batch = found.collate([found[1], found[0]])
    texts = ["sad film", "poor", "fine", "great long plot"]
    expected = reader.pad(reader.encode(texts, max_length=8), 5)["input_ids"]
    assert batch["input_ids"].tolist() == expected.tolist()
    assert batch["rows"].tolist() == [2, 3, 0, 1]
    assert batch["labels"][1] == 1 and batch["labels"].isnan().tolist() == [True, False]
    alone = found.read_by("teacher")
    assert [len(encoding) for encoding in alone.encodings] == [3, 5, 4, 3]


def test_who_reads_two_texts_as_one_has_inputs_beside(reader: Tokenizer) -> None:
    from distill.data.views import View, view_inputs

    table = Table("t", ["fine", "sad film"], ["great long plot", "poor"], None)
    found = sentence_samples(get_task("feature-extraction"), table, reader, max_length=8)
    joint = reader.encode(table.texts, table.pairs, max_length=16)
    found.views["teacher"] = View(joint, reader)
    batch = found.collate([found[1], found[0]])
    inputs = view_inputs(batch, "teacher")
    assert inputs["rows"].tolist() == [1, 0]
    assert inputs["input_ids"].tolist() == reader.pad([joint[1], joint[0]], 7)["input_ids"].tolist()
    assert batch["input_ids"].shape == (4, 5)


def test_translations_follow_the_first_text(
    embedder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """The second text comes to say to the student what the first one does to its teacher."""
    words = [f"{a} {b}" for a in NEUTRAL for b in NEUTRAL]
    other = dict(zip(NEUTRAL, [*GOOD, *BAD], strict=True))
    foreign = [" ".join(other[word] for word in text.split()) for text in words]
    train = tmp_path / "train.tsv"
    rows = "".join(f"{a}\t{b}\n" for a, b in zip(words, foreign, strict=True))
    train.write_text(f"sentence1\tsentence2\n{rows}")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\nsummary: s\ntask: feature-extraction\n"
        "stages: [{translations: true, terms: [{match: logits, loss: cosine}]}]\n"
    )
    values: dict[str, Any] = {"recipe": str(recipe), "student": "layers=4", "eval": None}
    for name, cache in (("a", None), ("b", tmp_path / "cache")):
        run(
            embedder,
            {**files, "train": train},
            tmp_path / name,
            epochs=20,
            learning_rate=5e-3,
            teacher_cache=cache,
            **values,
        )
    goal = embed(open_teacher(embedder), words)
    for name in ("a", "b"):
        assert closeness(embed(open_teacher(tmp_path / name), foreign), goal) > 0.5
    assert closeness(embed(open_teacher(embedder), foreign), goal) < 0.3


# Mistakes


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("embedding_dim=20", "embedding_dim=20 is more than the student's hidden states have: ask"),
        ("embedding_dim=14", "more than the teacher's vectors have: ask for at most 12"),
        ("embedding_dim=4", "embedding_dim"),
    ],
)
def test_sizes_that_cannot_be(
    embedder: Path, files: dict[str, Path], tmp_path: Path, student: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        run(embedder, files, tmp_path / "s", student=student)
    assert "\n" not in str(found.value)


def test_sizes_are_for_embeddings(checkpoint: Path, data: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="embedding_dim=8 is for embeddings, and this student do"):
        run(checkpoint, data, tmp_path / "s", student="embedding_dim=8", recipe="kd")


def test_labels_need_similarities(embedder: Path, files: dict[str, Path], tmp_path: Path) -> None:
    values: dict[str, Any] = {"recipe": "finetune", "student": "layers=1"}
    plain = {**files, "train": files["plain"]}
    with pytest.raises(DataError, match="has no pairs with similarities, which match: labels lea"):
        run(embedder, plain, tmp_path / "s", **values)
    same = tmp_path / "same.tsv"
    same.write_text("sentence1\tsentence2\tscore\nfine\tfilm\t1\nsad\tplot\t1\n")
    with pytest.raises(DataError, match="all pairs are equally alike, so match: labels has nothi"):
        run(embedder, {**files, "train": same}, tmp_path / "s", **values)


def test_translations_have_other_words(
    embedder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\nsummary: s\ntask: feature-extraction\n"
        "stages: [{translations: true, terms: [{match: hidden_states}]}]\n"
    )
    with pytest.raises(ConfigError, match="match: hidden_states compares the same words, and with"):
        run(embedder, files, tmp_path / "s", recipe=str(recipe))
    with pytest.raises(DataError, match="one text in each row, and translations: true needs a te"):
        run(embedder, {**files, "train": files["plain"]}, tmp_path / "s", recipe=str(recipe))


def test_classes_are_for_classifiers(
    embedder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="an embedding has no classes for loss: kl: use mse or"):
        run(embedder, files, tmp_path / "s", recipe="kd")


def test_a_recipe_for_embeddings_wants_such_a_teacher(
    checkpoint: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has 2 labels: embeddings follow an embedding model"):
        run(checkpoint, data, tmp_path / "s")


def test_the_record_says_what_was_made(
    embedder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    run(embedder, files, tmp_path / "s", max_steps=1, student="layers=1")
    record = json.loads((tmp_path / "s" / "distillation.json").read_text())
    assert record["recipe"] == "embedding" and record["metric"] == "spearman"
