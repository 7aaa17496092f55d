"""Tasks beside text classification: what a model is given to learn, and training end to end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill import DistillConfig, DistillResult, distill
from distill.tasks import TASKS as TRAINED
from distill.tasks import task_training
from edge.data import Table
from edge.errors import ConfigError, DataError
from edge.tasks import TASKS as KNOWN
from edge.tasks import get_task
from tests.distill.conftest import BAD, GOOD, NEUTRAL, distil_tiny

TAGS = ("O", "B-GOOD", "B-BAD")
WORDS = get_task("token-classification", labels=TAGS)
ANSWERS = get_task("question-answering")
IGNORED = -100


@pytest.fixture(scope="module")
def tokenizer(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Knows the words of tests/models.py, and letters: `zebra` is five tokens."""
    from transformers import AutoTokenizer

    from edge.tokenization import Tokenizer

    folder = tiny_checkpoint(tmp_path_factory.mktemp("pieces"))
    return Tokenizer.of(AutoTokenizer.from_pretrained(folder), folder=folder)


def samples(task: Any, table: Table, tokenizer: Any, max_length: int = 32, **options: Any) -> Any:
    return task_training(task.name).samples(
        task, table, tokenizer, max_length=max_length, **options
    )


def tagged(*rows: list[tuple[str, Any]]) -> Table:
    words = [[word for word, _ in row] for row in rows]
    tags = [[tag for _, tag in row] for row in rows]
    return Table("tagged.jsonl", [" ".join(w) for w in words], None, tags, words=words)


def asked(context: str, answers: Any) -> Table:
    return Table("asked.jsonl", ["who"], [context], [answers])


def test_a_word_s_label_is_at_its_first_token(tokenizer: Any) -> None:
    found = samples(WORDS, tagged([("zebra", 1), ("film", 0), ("bad", 2)]), tokenizer)
    expected = [IGNORED, 1, *[IGNORED] * 4, 0, 2, IGNORED]
    assert found.targets[0].tolist() == expected
    short = samples(WORDS, tagged([("bad", 2)], [("zebra", 1)]), tokenizer)
    labels = short.collate([short[0], short[1]])["labels"]
    assert labels.tolist() == [
        [IGNORED, 2, *[IGNORED] * 5],
        [IGNORED, 1, *[IGNORED] * 5],
    ]


def test_words_of_a_long_sentence_are_labelled_once(tokenizer: Any) -> None:
    """Pieces of 8 tokens overlap, and one starts within a word."""
    row = [(word, i % 3) for i, word in enumerate(["film", "zebra", "bad", "plot"] * 4)]
    found = samples(WORDS, tagged(row), tokenizer, max_length=8)
    assert len(found) > 4
    labels = [
        (encoding.words[position], int(label))
        for encoding, targets in zip(found.encodings, found.targets, strict=True)
        for position, label in enumerate(targets)
        if label != IGNORED
    ]
    assert labels == [(number, tag) for number, (_, tag) in enumerate(row)]


def test_an_answer_is_its_first_and_last_token(tokenizer: Any) -> None:
    context = "the zebra was good"
    for answers in (
        {"text": ["zebra was"], "answer_start": [4]},
        [{"text": "zebra was", "answer_start": 4}],
        {"text": ["zebra was"], "answer_start": [99]},
        "zebra was",
    ):
        found = samples(ANSWERS, asked(context, answers), tokenizer)
        (start, end), encoding = found.targets[0], found.encodings[0]
        # [CLS] who [SEP] the z ##e ##b ##r ##a was good [SEP]
        assert (start, end) == (4, 9), answers
        assert (encoding.offsets[start][0], encoding.offsets[end][1]) == (4, 13)


def test_the_answer_meant_is_where_the_data_says(tokenizer: Any) -> None:
    answers = {"text": ["film"], "answer_start": [13]}
    assert samples(ANSWERS, asked("film of good film", answers), tokenizer).targets.tolist() == [
        [6, 6]
    ]


def test_pieces_without_the_answer_point_to_the_first_token(tokenizer: Any) -> None:
    context = " ".join(["the"] * 12 + ["great"] + ["of"] * 12)
    found = samples(ANSWERS, asked(context, "great"), tokenizer, max_length=12)
    assert len(found) > 2
    for encoding, (start, end) in zip(found.encodings, found.targets.tolist(), strict=True):
        texts = [context[slice(*offset)] for offset in encoding.offsets]
        place = texts.index("great") if "great" in texts else 0
        assert (start, end) == (place, place)


def test_an_answer_that_is_not_there_is_no_label(tokenizer: Any) -> None:
    table = Table("asked.jsonl", ["who"] * 2, ["a film", "a plot"], ["zebra", "plot"])
    assert samples(ANSWERS, table, tokenizer).targets.tolist() == [[IGNORED] * 2, [4, 4]]
    with pytest.raises(DataError, match="no context contains its answer; question-answering needs"):
        samples(ANSWERS, asked("a film", "zebra"), tokenizer)


def test_every_task_that_is_allowed_has_rows() -> None:
    assert set(TRAINED) == set(KNOWN)
    for name in TRAINED:
        assert task_training(name) is task_training(name)


def write_tags(path: Path, count: int, seed: int) -> Path:
    """Each word of opinion has its tag."""
    kinds = {**dict.fromkeys(GOOD, "B-GOOD"), **dict.fromkeys(BAD, "B-BAD")}
    choose, lines = random.Random(seed), []
    for _ in range(count):
        for word in choose.choices([*GOOD, *BAD, *NEUTRAL], k=choose.randrange(3, 9)):
            lines.append(f"{word} {kinds.get(word, 'O')}")
        lines.append("")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_questions(path: Path, count: int, seed: int) -> Path:
    """The answer is the one word of opinion."""
    choose, lines = random.Random(seed), []
    for _ in range(count):
        words = choose.choices(NEUTRAL, k=choose.randrange(2, 8))
        answer = choose.choice([*GOOD, *BAD])
        words.insert(choose.randrange(len(words) + 1), answer)
        row = {"question": "film", "context": " ".join(words), "answers": {"text": [answer]}}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
    return path


TASKS = {
    "token-classification": ("AutoModelForTokenClassification", TAGS, write_tags, "data.conll"),
    "question-answering": (
        "AutoModelForQuestionAnswering",
        ("a", "b"),
        write_questions,
        "qa.jsonl",
    ),
}


def write_lines(path: Path, count: int, seed: int) -> Path:
    """A word three to six times: any one of them tells the others."""
    choose = random.Random(seed)
    words = [choose.choice([*GOOD, *BAD, *NEUTRAL]) for _ in range(count)]
    path.write_text("".join(f"{' '.join([word] * choose.randrange(3, 7))}\n" for word in words))
    return path


@pytest.mark.parametrize("task", TASKS)
def test_a_student_learns_the_task_from_its_teacher(
    make_checkpoint: Callable[..., Path], task: str, tmp_path: Path
) -> None:
    """A teacher is trained on labels; a student follows it live, from a cache, and in pieces."""
    import transformers

    auto, labels, write, name = TASKS[task]
    folders = [tmp_path / part for part in ("train", "eval")]
    for folder in folders:
        folder.mkdir()
    files = {f.name: write(f / name, n, n) for f, n in zip(folders, (96, 40), strict=True)}

    def run(output: str, **changes: Any) -> DistillResult:
        own = {"epochs": 8, "learning_rate": 5e-3}
        return distil_tiny(None, files, tmp_path / output, **{**own, **changes})

    quiet = {"initializer_range": 0.1, "hidden_dropout_prob": 0.0}
    blank = make_checkpoint(auto=auto, labels=labels, **quiet)
    teacher = run("teacher", teacher=str(blank), student="layers=4", recipe="finetune")
    assert teacher.metric == "f1"
    assert teacher.value is not None and teacher.value > 0.9
    assert teacher.teacher_value is not None and teacher.teacher_value < 0.7
    follow = {"teacher": str(tmp_path / "teacher"), "student": "layers=1,init=random"}
    for recipe, more in (
        ("kd-hidden", {"max_length": 8}),
        ("kd", {"teacher_cache": tmp_path / "cache"}),
    ):
        found = run(recipe, recipe=recipe, **follow, **more)
        assert found.value is not None and found.value > 0.9, recipe
        assert (found.train_samples, found.eval_samples) == (96, 40)
    _, info = getattr(transformers, auto).from_pretrained(tmp_path / "kd", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


MASKED = """
name: masked
summary: s
stages:
- masking: {share: 0.3, rare: 0.7}
  terms:
  - {match: logits, temperature: 2, weight: 5}
  - {match: labels, weight: 2}
  - {match: hidden_states, loss: cosine, layers: [[-1, -1]]}
"""


def test_a_student_learns_to_guess_hidden_tokens(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From plain text; a run that is stopped in its second epoch ends where a whole one does."""
    from transformers import AutoModelForMaskedLM

    from distill.training.trainer import DistillTrainer

    counts = {"train": 96, "eval": 40}
    files = {name: write_lines(tmp_path / f"{n}.txt", n, n) for name, n in counts.items()}
    quiet = {"initializer_range": 0.1, "hidden_dropout_prob": 0.0}
    blank = make_checkpoint(auto="AutoModelForMaskedLM", **quiet)
    (tmp_path / "masked.yaml").write_text(MASKED)

    def run(output: str, **changes: Any) -> DistillResult:
        return distil_tiny(None, files, tmp_path / output, **{"learning_rate": 5e-3, **changes})

    teacher = run("teacher", teacher=str(blank), student="layers=4", recipe="finetune", epochs=20)
    assert teacher.metric == "masked_accuracy"
    assert teacher.value is not None and teacher.value > 0.9
    follow = {"teacher": str(tmp_path / "teacher"), "recipe": str(tmp_path / "masked.yaml")}
    follow |= {"student": "layers=2,init=random", "save_seconds": 0}
    found = run("student", **follow, epochs=15)
    assert found.value is not None and found.value > 0.8
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "student")
    assert model.config.num_hidden_layers == 2

    run("whole", **follow, epochs=2)
    step, count = DistillTrainer.training_step, 0

    def interrupt(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 15:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(DistillTrainer, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", **follow, epochs=2)
    run("stopped", **follow, epochs=2)
    assert count == 15 + 24 - 14
    whole, stopped = (tmp_path / name / "model.safetensors" for name in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()
    with pytest.raises(ConfigError, match="hidden in every epoch, so .*leave out --teacher-cache"):
        run("cached", **follow, teacher_cache=tmp_path / "cache")


def plain(*texts: str) -> Table:
    return Table("plain.txt", list(texts), None, None)


def test_tokens_are_hidden_anew_in_every_epoch(tokenizer: Any) -> None:
    """15% of them: of those, 80% are the mask, 10% another token, 10% themselves."""
    import numpy as np

    task = get_task("fill-mask")
    texts = plain(*["the film was good and the plot was bad of a great film"] * 100)
    found = samples(task, texts, tokenizer)
    kinds = dict.fromkeys(("mask", "other", "same"), 0)
    hidden = []
    for epoch in range(20):
        found.set_epoch(epoch)
        hidden.append([found[row][2] != IGNORED for row in range(100)])
        for row in range(100):
            _, (encoding,), labels = found[row]
            whole = np.asarray(found.encodings.source[row].input_ids)
            read = np.asarray(encoding.input_ids)
            chosen = labels != IGNORED
            assert chosen.sum() == 2 and not chosen[[0, -1]].any()
            assert (labels[chosen] == whole[chosen]).all()
            assert (read[~chosen] == whole[~chosen]).all()
            kinds["mask"] += int((read[chosen] == 4).sum())
            kinds["same"] += int((read[chosen] == whole[chosen]).sum())
            kinds["other"] += int(((read != whole) & (read != 4)).sum())
    total = sum(kinds.values())
    assert kinds["mask"] / total == pytest.approx(0.8, abs=0.02)
    assert kinds["same"] / total == pytest.approx(0.1, abs=0.02)
    assert not np.array_equal(hidden[0], hidden[1])
    found.set_epoch(0)
    assert np.array_equal(hidden[0], [found[row][2] != IGNORED for row in range(100)])


def test_rare_tokens_are_hidden_more_often(tokenizer: Any) -> None:
    from distill.recipe.tokens import Masking

    task, texts = get_task("fill-mask"), plain(*["the the the the the the the film"] * 400)
    shares = []
    for rare in (0.0, 0.7):
        masking = Masking(rare=rare)
        found = samples(task, texts, tokenizer, max_length=16, masking=masking)
        shares.append(sum(found[row][2][8] != IGNORED for row in range(400)) / 400)
    # 1 of 8 tokens; then 400^-.7 of (400^-.7 + 7 * 2800^-.7).
    assert shares == pytest.approx([1 / 8, 7**0.7 / (7**0.7 + 7)], abs=0.06)


def test_plain_text_runs_in_pieces_and_empty_lines_are_left_out(tokenizer: Any) -> None:
    task = get_task("fill-mask")
    found = samples(task, plain("the film " * 10, " ", "bad"), tokenizer, max_length=12)
    assert sorted(len(encoding) for encoding in found.encodings) == [3, 12, 12]
    with pytest.raises(DataError, match="every text is empty; fill-mask needs a text in each row"):
        samples(task, plain(" "), tokenizer)


def test_masking_is_for_hidden_tokens(tokenizer: Any) -> None:
    from distill.recipe.tokens import Masking

    with pytest.raises(ConfigError, match="masking is for fill-mask, token-classification hides"):
        samples(WORDS, tagged([("a", 0)]), tokenizer, max_length=8, masking=Masking())


def test_new_texts_are_for_texts_without_labelled_words(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    blank = make_checkpoint(auto="AutoModelForTokenClassification", labels=TAGS)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\nsummary: s\nstages: [{augment: [{method: rules}], terms: [{match: logits}]}]\n"
    )
    train = write_tags(tmp_path / "data.conll", 8, 1)
    values = {"teacher": str(blank), "recipe": str(recipe), "train": str(train)}
    with pytest.raises(ConfigError, match="token-classification learns from labelled words: take"):
        distill(DistillConfig.build({**values, "output": tmp_path / "student"}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("film O\nplot O\n", "has one class only, 'O' in every row"),
        ("film O\nplot B-UGLY\n", "tag 'B-UGLY' is not one of the model's"),
        ("film O\nplot I-BAD\n", "tag 'I-BAD' is not one of the model's .O, B-GOOD, B-BAD."),
    ],
)
def test_tags_that_cannot_be_learned(
    make_checkpoint: Callable[..., Path], tmp_path: Path, content: str, message: str
) -> None:
    blank = make_checkpoint(auto="AutoModelForTokenClassification", labels=TAGS)
    path = tmp_path / "data.conll"
    path.write_text(content)
    values = {"teacher": str(blank), "recipe": "kd", "train": str(path), "student": "layers=1"}
    with pytest.raises(DataError, match=message):
        distill(DistillConfig.build({**values, "output": tmp_path / "student"}))
