"""Texts whose words are read in one of two vocabularies, the model that reads them, and chains."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from distill.data.batches import Samples
from distill.data.masking import masked_samples
from distill.data.mixing import MixedEncodings, Mixer
from distill.losses import distributions
from distill.losses.distributions import IGNORED
from distill.recipe.student import parse_spec
from distill.recipe.tokens import Masking
from distill.signals.shapes import Setting, Shape
from distill.students import Student, Teacher, build_student
from distill.students.two_vocabularies import BothVocabularies
from distill.training.trainer import DistillTrainer
from edge.data import Table, read_table
from edge.errors import ConfigError
from edge.tokenization import Tokenizer
from tests.distill.conftest import add_words, distil_tiny, open_teacher, watch_links

SPEC = "vocabulary=45"
TEXTS = ["great film plot", "a sad, long scene music", "actor", "poor poor film"]
PAIRS = ["lovely music", "film", "long long long awful plot actor scene", ""]


@pytest.fixture(scope="module")
def wordy(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_words(taught, tmp_path_factory.mktemp("wordy"))


@pytest.fixture(scope="module")
def guesser(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that guesses hidden tokens."""
    auto = "AutoModelForMaskedLM"
    return add_words(make_checkpoint(auto=auto), tmp_path_factory.mktemp("guesser"), auto)


def read_with(reader: Teacher | Student) -> Tokenizer:
    return Tokenizer.of(reader.tokenizer, folder=reader.checkpoint.path)


def made(folder: Path, data: dict[str, Path], spec: str = SPEC) -> tuple[Teacher, Student]:
    teacher = open_teacher(folder)
    return teacher, build_student(parse_spec(spec), teacher, read_table(data["train"]), seed=0)


@pytest.fixture(scope="module")
def readers(wordy: Path, data: dict[str, Path]) -> tuple[Tokenizer, Tokenizer]:
    """What a student reads with, and its teacher."""
    teacher, student = made(wordy, data)
    return read_with(student), read_with(teacher)


def table(pairs: bool = True) -> Table:
    return Table(source="x", texts=TEXTS, pairs=PAIRS if pairs else None, targets=None)


def words_of(ids: list[int], tokenizer: Tokenizer, start: int = 0) -> list[str]:
    return [tokenizer.token(index - start) for index in ids]


def test_each_word_is_read_in_one_of_both(readers: tuple[Tokenizer, Tokenizer]) -> None:
    own, other = readers
    size = own.info.vocabulary_size
    mixed = Mixer(own, other, 0.5, seed=3).read(table(), max_length=64)
    ours, theirs = own.encode_whole(TEXTS, PAIRS), other.encode_whole(TEXTS, PAIRS)
    seen = {True: 0, False: 0}
    for epoch in range(40):
        mixed.set_epoch(epoch)
        for row, encoding in enumerate(mixed):
            left, kinds = list(encoding.input_ids), list(encoding.token_type_ids or [])
            a, b = ours[row], theirs[row]
            assert a.words is not None and a.parts is not None and b.words is not None
            places = dict.fromkeys(zip(a.parts, a.words, strict=True))
            # Word for word, what one of the two tokenizers makes of it, and nothing else.
            for position, special in enumerate(a.special or []):
                place = a.parts[position], a.words[position]
                if special:
                    assert left.pop(0) == a.input_ids[position]
                    assert kinds.pop(0) == (a.token_type_ids or [])[position]
                elif places.pop(place, 0) is None:
                    choices = [
                        [
                            start + index
                            for index, *at in zip(
                                e.input_ids, e.parts or [], e.words or [], strict=True
                            )
                            if tuple(at) == place
                        ]
                        for e, start in ((a, 0), (b, size))
                    ]
                    is_own = left[0] < size
                    wanted = choices[0 if is_own else 1]
                    assert left[: len(wanted)] == wanted
                    assert set(kinds[: len(wanted)]) == {place[0]}
                    del left[: len(wanted)], kinds[: len(wanted)]
                    seen[is_own] += 1
            assert not left and not kinds
    assert seen[True] / sum(seen.values()) == pytest.approx(0.5, abs=0.06)


def test_what_is_read_follows_from_seed_epoch_and_row(
    readers: tuple[Tokenizer, Tokenizer],
) -> None:
    def read(seed: int, epoch: int) -> list[list[int]]:
        found = Mixer(*readers, 0.5, seed=seed).read(table(), max_length=64)
        # Whatever was read before.
        found.set_epoch(7)
        list(found)
        found.set_epoch(epoch)
        return [encoding.input_ids for encoding in reversed(found)]

    assert read(0, 0) == read(0, 0) != read(0, 1)
    assert read(0, 0) != read(1, 0)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("length", [5, 6, 9, 10, 64])
def test_texts_are_cut_as_a_tokenizer_cuts_them(
    readers: tuple[Tokenizer, Tokenizer], pairs: bool, length: int
) -> None:
    """With hardly a word in other tokens it is the student's own reading."""
    own, _ = readers
    texts = table(pairs)
    mixed = Mixer(*readers, 1 - 1e-12, seed=0).read(texts, max_length=length)
    plain = own.encode(texts.texts, texts.pairs, max_length=length)
    assert [e.input_ids for e in mixed] == [e.input_ids for e in plain]
    assert [e.token_type_ids for e in mixed] == [e.token_type_ids for e in plain]
    assert mixed.lengths.tolist() == [len(e) for e in plain]


def test_a_word_that_a_piece_cuts_is_not_replaced(readers: tuple[Tokenizer, Tokenizer]) -> None:
    own, other = readers
    texts = Table("x", ["lovely awful"], None, None)
    (whole,) = own.encode_whole(texts.texts)
    words = whole.words or []
    first = [i for i, word in enumerate(words) if word == 0]
    assert len(first) > 1
    cut = whole._select([0, *first[1:], *range(first[-1] + 1, len(whole))])
    mixed = Mixer(own, other, 1e-12, seed=0).mix(texts, [cut], [0], 64)
    size = own.info.vocabulary_size
    found = mixed[0].input_ids
    assert found[1 : len(first)] == [whole.input_ids[i] for i in first[1:]]
    assert words_of(found[len(first) : -1], other, size) == ["awful"]


def test_hidden_tokens_are_of_the_vocabulary_of_their_word(
    readers: tuple[Tokenizer, Tokenizer],
) -> None:
    own, other = readers
    mixer = Mixer(own, other, 0.5, seed=0)
    mixed = mixer.read(table(pairs=False), max_length=32)
    masked = masked_samples(mixed, own, Masking(share=0.5), seed=0, vocabulary=mixer.size)
    size, both = own.info.vocabulary_size, set()
    for epoch in range(4):
        masked.set_epoch(epoch)
        for row in range(len(masked)):
            _, (encoding,), labels = masked[row]
            hidden = labels != IGNORED
            read = np.asarray(mixed[row].input_ids)
            assert (labels[hidden] == read[hidden]).all() and hidden.any()
            assert (np.asarray(encoding.input_ids)[~hidden] == read[~hidden]).all()
            both |= set((labels[hidden] < size).tolist())
    assert both == {True, False}


def both_of(teacher: Teacher, student: Student, same_words: bool = False) -> BothVocabularies:
    shape = Shape.of(teacher.model.config)
    setting = Setting(shape, shape, None, same_words=same_words)
    return BothVocabularies(student.model, teacher.model, setting, "mix")


@pytest.mark.parametrize("kind", ["wordy", "guesser"])
def test_before_it_learns_it_is_its_teacher_on_the_teachers_tokens(
    kind: str, data: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    teacher, student = made(request.getfixturevalue(kind), data)
    model = student.model.eval()
    size = len(student.tokenizer)
    both = both_of(teacher, student)
    assert both.sizes == (size, len(teacher.tokenizer))
    theirs = dict(teacher.tokenizer(TEXTS, return_tensors="pt", padding=True))
    shifted = {**theirs, "input_ids": theirs["input_ids"] + size}
    own = dict(student.tokenizer(TEXTS, return_tensors="pt", padding=True))
    with torch.no_grad():
        wanted, plain = teacher.model(**theirs).logits, model(**own).logits
        with both.read():
            read, also = model(**shifted).logits, model(**own).logits
        again = model(**own).logits
    mask = theirs["attention_mask"].bool() if kind == "guesser" else slice(None)
    if kind == "guesser":
        assert read.shape[-1] == sum(both.sizes)
        torch.testing.assert_close(read[mask][..., size:], wanted[mask])
        torch.testing.assert_close(also[..., :size], plain)
    else:
        torch.testing.assert_close(read, wanted)
        torch.testing.assert_close(also, plain)
    # Afterwards it is the student as before.
    assert torch.equal(again, plain)


def test_both_vocabularies_learn_and_only_the_students_is_kept(
    guesser: Path, data: dict[str, Path]
) -> None:
    teacher, student = made(guesser, data)
    both = both_of(teacher, student)
    size, row = len(student.tokenizer), teacher.tokenizer.get_vocab()["film"]
    ids = torch.tensor([[student.tokenizer.get_vocab()["[CLS]"], size + row]])
    with both.read():
        student.model(input_ids=ids).logits.sum().backward()
    words, bias = both.words.weight.grad, both.bias
    assert words is not None and words[row].abs().sum() > 0
    assert bias is not None and bias.grad is not None and bias.grad.abs().sum() > 0
    assert set(dict(both.named_parameters())) == {"words.weight", "bias"}
    assert both.words.weight.data_ptr() != teacher.model.get_input_embeddings().weight.data_ptr()
    assert all(name != "words.weight" for name, _ in student.model.named_parameters())


def test_each_vocabulary_has_its_own_softmax() -> None:
    logits = torch.tensor([[[1.0, 2.0, 0.5, -1.0, 3.0], [0.0, 1.0, 4.0, 2.0, 2.0]]])
    logits.requires_grad_()
    labels = torch.tensor([[1, 3]])
    values = distributions.vocabulary_cross_entropy(logits, labels, (2, 3))
    first = -math.log(math.exp(2) / (math.exp(1) + math.exp(2)))
    second = -math.log(math.exp(2) / (math.exp(4) + math.exp(2) + math.exp(2)))
    assert values[0].tolist() == pytest.approx([first, second])
    values.sum().backward()
    # What belongs to the other vocabulary is not pushed down.
    assert logits.grad is not None
    assert logits.grad[0, 0, 2:].tolist() == [0, 0, 0] and logits.grad[0, 1, :2].tolist() == [0, 0]
    unknown = torch.tensor([[IGNORED, 1]])
    assert distributions.vocabulary_cross_entropy(logits, unknown, (2, 3))[0, 0] == 0


def test_the_labels_of_a_stage_that_mixes(guesser: Path, data: dict[str, Path]) -> None:
    """The term is the mean over hidden tokens of each one's own softmax."""
    from distill.objectives import Learner
    from distill.recipe.config import Stage

    teacher, student = made(guesser, data)
    shape, size = Shape.of(teacher.model.config), len(student.tokenizer)
    setting = Setting(shape, shape, None, task="fill-mask", same_words=False)
    stage = Stage.build({"terms": [{"match": "labels"}], "mixing": {}})
    learner = Learner(student.model, stage, setting, None, teacher.model).eval()
    ids = torch.tensor([[1, size + 3, 4, size + 9, 2]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.tensor([[IGNORED, size + 7, 6, IGNORED, IGNORED]])
    totals = learner.totals(learner.tally({**batch, "labels": labels}))
    (value,) = learner(batch, labels, None, totals)
    assert learner.mixed is not None
    with torch.no_grad(), learner.mixed.read():
        logits = student.model(**batch).logits[0]
    wanted = -(logits[1, size:].log_softmax(-1)[7] + logits[2, :size].log_softmax(-1)[6]) / 2
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)


run = partial(
    distil_tiny,
    student="layers=2,vocabulary=45",
    recipe="extreme-vocab",
    batch_size=16,
    epochs=1,
)


def log_of(folder: Path, stage: str, term: str) -> list[float]:
    with (folder / "training_log.csv").open(newline="") as file:
        return [
            float(row[term]) for row in csv.DictReader(file) if row["stage"] == stage and row[term]
        ]


def links_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Any, Any]]:
    """What the links of a chain start with: tokens and embeddings of teacher and student."""

    def note(link: Any, spec: str) -> Any:
        sides: list[Any] = []
        for one in (link.inputs.teachers[0], link.inputs.student):
            weight = one.model.get_input_embeddings().weight.detach().clone()
            sides += [one.tokenizer.get_vocab(), weight]
        return tuple(sides)

    return watch_links(monkeypatch, note)


def test_the_student_starts_from_the_embeddings_that_were_learned(
    wordy: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = links_of(monkeypatch)
    result = run(wordy, data, tmp_path / "out")
    (_, _, tokens, start), (also, learned, own, words) = seen
    assert tokens == also == own and len(own) <= 45
    assert torch.equal(words, learned)
    assert not torch.allclose(learned, start)
    assert [one["student"] for one in result.assistants or []] == ["vocabulary=45"]
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(own)
    embeddings = "bert.embeddings.word_embeddings.weight"
    assert load_file(tmp_path / "out" / "model.safetensors")[embeddings].shape == words.shape


@pytest.mark.parametrize("stop", [2, 5])
def test_what_was_interrupted_while_it_mixed_goes_on_alike(
    guesser: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    options = {
        "recipe": "extreme-vocab-general",
        "student": "layers=1,hidden=8,heads=2,vocabulary=45",
        "epochs": 2,
        "save_seconds": 0,
    }
    run(guesser, data, tmp_path / "through", **options)
    original, steps = DistillTrainer.training_step, 0

    def stopped(self: DistillTrainer, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == stop:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(DistillTrainer, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(guesser, data, tmp_path / "out", **options)
    assert (tmp_path / "out.training" / "assistant-1.training").is_dir()
    run(guesser, data, tmp_path / "out", **options)
    first, second = (load_file(tmp_path / n / "model.safetensors") for n in ("through", "out"))
    assert {name for name in first if not torch.equal(first[name], second[name])} == set()


def test_plain_text_end_to_end(guesser: Path, data: dict[str, Path], tmp_path: Path) -> None:
    """A general student that plain Transformers loads, and that `edge convert` takes."""
    from converters import ConvertConfig, convert

    result = run(
        guesser,
        data,
        tmp_path / "out",
        recipe="extreme-vocab-general",
        student="layers=2,hidden=8,heads=2,vocabulary=45",
        epochs=6,
        learning_rate=5e-3,
    )
    for term in ("labels", "logits", "parameters"):
        values = log_of(tmp_path / "out", "pretrain", term)
        assert sum(values[-4:]) < sum(values[:4]), term
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer) == model.config.vocab_size <= 45
    assert result.parameters == model.num_parameters()
    assert torch.isfinite(model(**tokenizer("great [MASK]", return_tensors="pt")).logits).all()
    config = {"source": str(tmp_path / "out"), "output": tmp_path / "bundle", "format": ["onnx"]}
    bundle = convert(ConvertConfig.build({**config, "seq_length": [16], "precision": ["fp32"]}))
    (artifact,) = bundle.artifacts
    assert artifact.verification is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "layers=2"}, "student 'layers=2' says nothing of its own: add vocabulary="),
        ({"student": "layers=2,vocabulary=student"}, "vocabulary: Input should be a valid integer"),
        (
            {"assistants": ("layers=3", "layers=2")},
            "recipe 'extreme-vocab' trains its assistants in stages of their own: name 1 with",
        ),
        ({"assistants": ("layers=3",)}, "student and teacher have the same: give the student its"),
        (
            {"assistants": ("hidden=8,heads=2,vocabulary=45",)},
            "stage 'mix' mixes the words of two vocabularies, embedded in 8 and 16 numbers",
        ),
        ({"student": "layers=2,vocabulary=90"}, "the teacher has 77 tokens, ask for fewer"),
    ],
)
def test_chains_that_cannot_mix(
    changes: dict[str, Any], message: str, wordy: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(wordy, data, tmp_path / "out", **changes)
    assert not list(tmp_path.iterdir())


def test_stages_that_cannot_mix() -> None:
    from distill.recipe.config import Stage

    labels = {"terms": [{"match": "labels"}]}
    with pytest.raises(
        ConfigError, match="mixing, which only the student can read, and companion 'p"
    ):
        Stage.build({**labels, "mixing": {}, "companions": [{"kind": "peers"}]}, where="x")
    with pytest.raises(ConfigError, match=r"mixing.share: Input should be less than 1"):
        Stage.build({**labels, "mixing": {"share": 1}}, where="x")


def test_mixed_rows_are_samples_like_any_other(readers: tuple[Tokenizer, Tokenizer]) -> None:
    own, other = readers
    mixed = Mixer(own, other, 0.5, seed=0).read(table(), max_length=16)
    samples = Samples(mixed, np.arange(4), own)
    before = samples.collate([samples[i] for i in range(4)])
    samples.set_epoch(1)
    after = samples.collate([samples[i] for i in range(4)])
    assert isinstance(samples.encodings, MixedEncodings)
    assert before["labels"].tolist() == after["labels"].tolist() == [0, 1, 2, 3]
    assert before["input_ids"].tolist() != after["input_ids"].tolist()
    # Batches are made by lengths that do not change, or a continued run would see others.
    assert samples.lengths is mixed.lengths
