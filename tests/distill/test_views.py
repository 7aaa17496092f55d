"""Every combination of views that a recipe may ask for, at the level of the batches it gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill import DistillConfig, opening
from distill.data.batches import Samples, StepBatches
from distill.data.datasets import Texts, texts_of
from distill.data.views import Changing, view_inputs
from distill.inputs import Inputs
from distill.recipe.config import Recipe, Stage
from distill.training.trainer import DistillTrainer
from edge.errors import ConfigError, UserError
from tests.distill.conftest import BAD, GOOD, NEUTRAL, add_words, distil_tiny, write_tsv

COMPANIONS: dict[str, list[dict[str, Any]]] = {
    "plain": [],
    "partner": [{"kind": "partner"}],
    "changed": [{"kind": "transformed"}],
    "both": [{"kind": "partner"}, {"kind": "transformed"}],
}
QUESTIONS: dict[str, dict[str, Any]] = {
    "rows": {},
    "pairs": {"match": "margin", "candidates": 2},
    "filled": {"match": "margin", "candidates": 4, "negatives": True},
}
RULES = [{"method": "rules", "copies": 1}]
FOLLOW = {"match": "logits"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten questions of three passages, of two classes."""
    rows = [
        (f"{NEUTRAL[q % 6]} {NEUTRAL[q // 6]}", f"{(BAD, GOOD)[c % 2][q % 3]} {NEUTRAL[c]}", c % 2)
        for q in range(10)
        for c in range(3)
    ]
    folder = tmp_path_factory.mktemp("pairs")
    return write_tsv(folder / "train.tsv", "sentence1 sentence2 label", rows)


@pytest.fixture(scope="module")
def opened(
    make_checkpoint: Callable[..., Path], pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Inputs]:
    """The inputs of a run by its task and how many teachers it has; their tokens are 77."""
    made: dict[Any, Inputs] = {}

    def open_inputs(
        auto: str, *, vocabulary: bool = False, teachers: int = 1, **changes: Any
    ) -> Inputs:
        key = auto, vocabulary, teachers, tuple(changes)
        if key not in made:
            folders = [
                add_words(
                    make_checkpoint(auto=auto, seed=seed, **changes),
                    tmp_path_factory.mktemp("teacher"),
                    auto,
                )
                for seed in range(1, teachers + 1)
            ]
            config = DistillConfig(
                teacher=tuple(map(str, folders)),
                student="layers=1,vocabulary=60" if vocabulary else "layers=1",
                train=str(pairs),
                output=Path("student"),
                augment_folder=tmp_path_factory.mktemp("texts"),
            )
            # A teacher that guesses tokens is asked for labels where nothing says what is learned.
            task = {"task": "fill-mask"} if auto == "AutoModelForMaskedLM" else {}
            made[key] = opening.open_inputs(
                config, Recipe.build(recipe_of({"terms": [FOLLOW]}) | task)
            )
        return made[key]

    return open_inputs


def recipe_of(stage: dict[str, Any]) -> dict[str, Any]:
    return {"name": "test", "summary": "test", "stages": [{"batch_size": 8, **stage}]}


def texts(inputs: Inputs, stage: dict[str, Any]) -> Texts | None:
    """What a stage trains on; None where the run would be refused."""
    try:
        recipe = Recipe.build(recipe_of(stage))
        inputs.learner(recipe.stages[0])
        return texts_of(inputs, recipe)["train"]
    except UserError:
        return None


def batches(samples: Samples, epoch: int) -> Iterator[dict[str, Tensor]]:
    order = StepBatches.of(samples, 8, accumulation=2, seed=3)
    order.set_epoch(epoch)
    for rows in order:
        yield samples.collate([samples[row] for row in rows])


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    same = (
        torch.equal(value.nan_to_num(), other[name].nan_to_num()) for name, value in one.items()
    )
    return one.keys() == other.keys() and all(same)


def check(inputs: Inputs, stage: dict[str, Any]) -> bool:
    """Whether a stage is accepted; its batches are then as they should be."""
    found, again = texts(inputs, stage), texts(inputs, stage)
    if found is None or again is None:
        return False
    epochs = [list(batches(found.samples, epoch)) for epoch in (0, 1)]
    check_questions(found, epochs[1], inputs)
    for batch in epochs[1]:
        check_tokens(found, batch, inputs)
    kinds = Stage.build(stage).views
    views = found.samples.views.items()
    # The halves of a text trade places in one way.
    changing = [n for n, view in views if moves(view.encodings) and kinds.get(n) != "swap"]
    own = moves(found.samples.encodings)
    for name in changing:
        rows = [read(found.samples, name, epoch) for epoch in (0, 1)]
        # A view of the student's own texts moves with them, whatever it does itself.
        assert rows[0] != rows[1], name
    assert not own or read(found.samples, "", 0) != read(found.samples, "", 1)
    # Another process that goes on after the first batch of the second epoch.
    rest = itertools.islice(batches(again.samples, 1), 1, None)
    assert all(alike(one, other) for one, other in zip(epochs[1][1:], rest, strict=True))
    first = list(batches(found.samples, 0))
    assert all(alike(one, other) for one, other in zip(epochs[0], first, strict=True))
    return True


def moves(encodings: Any) -> bool:
    return isinstance(encodings, Changing)


def read(samples: Samples, name: str, epoch: int) -> list[list[int]]:
    samples.set_epoch(epoch)
    return [encoding.input_ids for encoding in samples.read_by(name).encodings]


def check_questions(found: Texts, epoch: list[dict[str, Tensor]], inputs: Inputs) -> None:
    """Rows of one question are in one batch, side by side; every row is in some batch."""
    block, sides = found.samples.block, len(found.samples.own) // len(found.samples)
    seen: list[int] = []
    for batch in epoch:
        rows = batch["rows"][::sides] // sides
        for group in rows.reshape(-1, block).tolist():
            assert group == list(range(group[0], group[0] + block)) and group[0] % block == 0
            if block > 1:
                assert len({found.table.texts[row] for row in group}) == 1
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(found.samples)))


def check_tokens(found: Texts, batch: dict[str, Tensor], inputs: Inputs) -> None:
    """Each reader's inputs are what its own tokenizer makes of the row."""
    samples, table = found.samples, found.table
    own = inputs.tokenizer()
    for name, view in samples.views.items():
        inside = view_inputs(batch, name)
        expected = inputs.tokenizer(inputs.named_teachers[name]) if "teacher" in name else own
        assert view.tokenizer.info.vocabulary_size == expected.info.vocabulary_size
        each = len(view) // len(samples)
        for place, index in enumerate(inside["rows"].tolist()):
            row, ids = index // each, inside["input_ids"][place].tolist()
            ids = ids[: int(inside["attention_mask"][place].sum())]
            if "teacher" in name and each == 1:
                text, pair = table.texts[row], table.pairs and [table.pairs[row]]
                assert ids == expected.encode([text], pair, max_length=64)[0].input_ids
            elif "teacher" not in name:
                check_companion(samples, view.encodings[index].input_ids, ids, name, row)


def check_companion(samples: Samples, now: list[int], ids: list[int], name: str, row: int) -> None:
    """A partner is of the same class; what a change leaves are the row's own tokens."""
    assert ids == now
    own = samples.encodings[row].input_ids
    if name == "partner":
        target = np.asarray(samples.targets[row])
        alike = [i for i, one in enumerate(samples.targets) if np.array_equal(one, target)]
        assert ids in [samples.encodings[i].input_ids for i in alike] or ids == own
    else:
        assert len(ids) == len(own)


@pytest.mark.parametrize("vocabulary", [False, True])
@pytest.mark.parametrize("teachers", [1, 2])
def test_texts_of_one_class(opened: Callable[..., Inputs], vocabulary: bool, teachers: int) -> None:
    auto = "AutoModelForSequenceClassification"
    inputs = opened(auto, vocabulary=vocabulary, teachers=teachers)
    accepted = set()
    who = "teachers" if teachers > 1 else "teacher"
    for kind, question, mixing, augment in itertools.product(
        COMPANIONS, QUESTIONS, (False, True), (False, True)
    ):
        terms = [
            {**FOLLOW, "teacher": who},
            *([QUESTIONS[question]] if QUESTIONS[question] else []),
        ]
        stage: dict[str, Any] = {"companions": COMPANIONS[kind], "terms": terms}
        for term in terms:
            term["teacher"] = who
        stage |= {"mixing": {}} if mixing else {}
        stage |= {"augment": RULES} if augment else {}
        if check(inputs, stage):
            accepted.add((kind, question, mixing, augment))
    kinds, questions = set(COMPANIONS), set(QUESTIONS)
    expected = {(k, q, False, False) for k in kinds for q in questions}
    expected |= {(k, "rows", False, True) for k in kinds}
    if vocabulary:
        expected |= {("plain", q, True, False) for q in questions} | {("plain", "rows", True, True)}
    assert accepted == expected


@pytest.mark.parametrize("vocabulary", [False, True])
def test_masked_texts(opened: Callable[..., Inputs], vocabulary: bool) -> None:
    inputs = opened("AutoModelForMaskedLM", vocabulary=vocabulary)
    accepted = {
        (mixing, bool(masking), label)
        for mixing, masking, label in itertools.product(
            (False, True), ({}, {"share": 0.4, "rare": 0.5}), (False, True)
        )
        if check(
            inputs,
            {
                "terms": [{"match": "labels"} if label else FOLLOW],
                **({"mixing": {}} if mixing else {}),
                **({"masking": masking} if masking else {}),
            },
        )
    }
    # A teacher that reads other tokens says nothing of masked ones.
    labels = (True,) if vocabulary else (False, True)
    assert {(mixing, label) for mixing, _, label in accepted} == {
        (mixing, label) for mixing in ({False, True} if vocabulary else {False}) for label in labels
    }


@pytest.fixture(scope="module")
def embedding_inputs(
    opened: Callable[..., Inputs], make_checkpoint: Callable[..., Path], pairs: Path
) -> dict[str, Inputs]:
    """A student that reads the texts of a row one by one; its teacher reads them joint or apart."""
    from edge.tasks.feature_extraction import FeatureExtraction

    recipe = Recipe.build({**recipe_of({"terms": [FOLLOW]}), "task": FeatureExtraction.name})
    scorer = make_checkpoint(labels=("score",))
    embedder = make_checkpoint(auto="AutoModel")
    return {
        kind: opening.open_inputs(
            DistillConfig(
                teacher=str(folder),
                student="layers=1",
                train=str(pairs),
                output=Path("s"),
                task=FeatureExtraction.name,
            ),
            recipe,
        )
        for kind, folder in (("joint", scorer), ("apart", embedder))
    }


@pytest.mark.parametrize("kind", ["joint", "apart"])
def test_texts_that_are_read_one_by_one(
    embedding_inputs: dict[str, Inputs], kind: str, tmp_path: Path
) -> None:
    inputs = embedding_inputs[kind]
    inputs = replace(inputs, config=inputs.config.model_copy(update={"augment_folder": tmp_path}))
    accepted = set()
    for question, translations, augment in itertools.product(
        QUESTIONS, (False, True), (False, True)
    ):
        margin = QUESTIONS[question] or ({"match": "margin"} if kind == "joint" else None)
        terms = [margin] if margin else [{**FOLLOW, "loss": "mse"}]
        stage: dict[str, Any] = {"terms": terms, "translations": translations}
        stage |= {"augment": RULES} if augment else {}
        if check(inputs, stage):
            accepted.add((question, translations, augment))
    expected = {(question, False, False) for question in QUESTIONS} | {("rows", False, True)}
    if kind == "apart":
        expected |= {("rows", True, False), ("rows", True, True)}
    assert accepted == expected


def test_projections_start_alike_after_a_stage_that_an_earlier_run_finished(
    taught: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second stage is shown the texts of the first epoch, whether the first one ran or not."""
    recipe = tmp_path / "two.yaml"
    stage = "companions: [{kind: transformed}], batch_size: 16"
    recipe.write_text(
        "name: two\nsummary: x\nstudent: 'layers=2,hidden=8,init=random'\nstages:\n"
        "  - {name: one, epochs: 2, terms: [{match: labels, learner: view}], "
        f"{stage}}}\n"
        "  - {name: two, epochs: 1, terms: [{match: hidden_states}, {match: logits, "
        f"teacher: aggregate}}], {stage}}}\n"
    )
    shown: list[Any] = []
    original = DistillTrainer._first_batches

    def watch(self: Any) -> Iterator[Any]:
        for batch in original(self):
            shown.append({name: value.clone() for name, value in batch.items()})
            yield batch

    monkeypatch.setattr(DistillTrainer, "_first_batches", watch)
    step, count = DistillTrainer.training_step, 0

    def stop(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 7:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(DistillTrainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        distil_tiny(taught, data, tmp_path / "out", recipe=str(recipe), batch_size=None)
    before, count = len(shown), 100
    distil_tiny(taught, data, tmp_path / "out", recipe=str(recipe), batch_size=None)
    assert before and len(shown) == 2 * before
    assert all(alike(a, b) for a, b in zip(shown[:before], shown[before:], strict=True))


def test_stages_with_a_name_for_two() -> None:
    with pytest.raises(ConfigError, match="has two that are called"):
        Stage.build({"terms": [FOLLOW], "companions": [{"kind": "partner"}] * 2})


def test_companions_read_the_students_tokens(opened: Callable[..., Inputs]) -> None:
    inputs = opened("AutoModelForSequenceClassification", vocabulary=True)
    assert inputs.own_words
    for spec in (None, "layers=2", "layers=2,vocabulary=60"):
        peer = inputs._new_student(spec, 1)
        assert len(peer.get_input_embeddings().weight) == len(inputs.student.tokenizer)
    for spec in ("layers=2,vocabulary=50", inputs.config.teachers[0]):
        with pytest.raises(ConfigError, match="would be given the student's tokens, and has other"):
            inputs._new_student(spec, 1)
