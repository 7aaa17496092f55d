"""One model that teaches itself: exits, snapshots, a virtual teacher, partners, changed texts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import Tensor

from distill import DistillConfig, DistillResult, distill, load_recipe
from distill.companions.exits import exit_layers
from distill.data.batches import Samples
from distill.data.views import companion_views
from distill.objectives import Learner
from distill.recipe.config import Stage
from distill.signals.capture import LiveTeacher, Need, Signals
from distill.signals.shapes import Setting, Shape
from distill.teachers.signals import names_of, parts_of, signals_of, wanted
from distill.training.trainer import DistillTrainer
from edge.checkpoint import open_checkpoint
from edge.errors import ConfigError
from edge.exits import measure_exits
from edge.models.exits import load_early_exit
from edge.tasks import get_task
from edge.tokenization import Encoding, Tokenizer
from tests.distill.conftest import distil_tiny, make_config, make_tokenizer

BATCH = {
    "input_ids": torch.tensor([[2, 5, 6, 3, 0], [2, 7, 8, 9, 3], [2, 10, 6, 3, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
}
LABELS = torch.tensor([0, 1, 1])
SELF = ("byot", "snapshot", "teacher-free", "class-wise", "sla")
AUTO = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "fill-mask": "AutoModelForMaskedLM",
}


def make_student(task: str = "text-classification", seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    return getattr(transformers, AUTO[task]).from_config(make_config("bert", **changes)).eval()


def learner_of(
    terms: list[dict[str, Any]],
    *companions: dict[str, Any],
    task: str = "text-classification",
    problem: str | None = None,
    **changes: Any,
) -> Learner:
    stage = Stage.build({"terms": terms, "companions": list(companions)}, where="recipe")
    student = make_student(task, **changes)
    setting = Setting(Shape.of(student.config), None, problem, task)
    return Learner(student, stage, setting).eval()


def values_of(
    model: Learner, labels: Tensor = LABELS, batch: Mapping[str, Tensor] = BATCH
) -> Tensor:
    return model(batch, labels, None, model.totals(model.tally({**batch, "labels": labels})))


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL, one value a row, in the most direct form."""
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    return (p * (p / q).log()).sum(-1) * temperature**2


def answers_at(model: Any, head: Any, layer: int) -> tuple[Tensor, Tensor]:
    """Pooled features and logits of a BERT exit, module by module."""
    states = model(**BATCH, output_hidden_states=True).hidden_states[layer]
    pooled = torch.tanh(head.bert.pooler.dense(states[:, 0]))
    return pooled, head.classifier(pooled)


BYOT = [
    {"match": "labels"},
    {"match": "labels", "learner": "exit", "weight": 0.7},
    {"match": "logits", "learner": "exit", "teacher": "student", "temperature": 3},
    {"match": "features", "learner": "exit", "teacher": "student"},
]
EXITS = {"kind": "exits", "layers": [1, 3]}


def test_exits_learn_labels_and_the_last_answer() -> None:
    """Zhang et al. 2019, T^2 added: sums over exits of CE, KL from the deepest, L2 hint."""
    model = learner_of(BYOT, EXITS)
    # Exits start alike; make them differ.
    for head in model.companions[0].heads:
        torch.nn.init.normal_(head.classifier.weight)
    found = values_of(model)
    full = model.student(**BATCH).logits
    deepest = torch.tanh(
        model.student.bert.pooler.dense(model.student.bert(**BATCH).last_hidden_state[:, 0])
    )
    exits = [
        answers_at(model.student, head, layer)
        for head, layer in zip(model.companions[0].heads, (1, 3), strict=True)
    ]
    expected = [
        F.cross_entropy(full, LABELS),
        sum(F.cross_entropy(logits, LABELS) for _, logits in exits),
        sum(kl(logits, full, 3).mean() for _, logits in exits),
        sum(F.mse_loss(pooled, deepest) for pooled, _ in exits),
    ]
    torch.testing.assert_close(found, torch.stack([torch.as_tensor(e) for e in expected]))
    assert (found > 1e-3).all()


def test_the_deepest_stands_still_and_shared_layers_learn() -> None:
    model = learner_of(BYOT[2:], EXITS)
    for head in model.companions[0].heads:
        torch.nn.init.normal_(head.classifier.weight)
    values_of(model).sum().backward()
    student = model.student
    # What only the last answer goes through.
    assert student.classifier.weight.grad is None
    assert student.bert.encoder.layer[3].output.dense.weight.grad is None
    assert student.bert.encoder.layer[2].output.dense.weight.grad.abs().max() > 0
    assert all(h.bert.pooler.dense.weight.grad.abs().max() > 0 for h in model.companions[0].heads)


def test_detached_exits_leave_the_layers_below_alone() -> None:
    model = learner_of([BYOT[1]], {**EXITS, "detach": True})
    values_of(model).sum().backward()
    assert all(parameter.grad is None for parameter in model.student.parameters())
    assert all(h.classifier.weight.grad.abs().max() > 0 for h in model.companions[0].heads)


def test_an_exit_has_the_states_below_it() -> None:
    term = {"match": "hidden_states", "learner": "exit", "teacher": "student"}
    model = learner_of([{**term, "layers": [[-1, 4]]}], EXITS)
    states = model.student(**BATCH, output_hidden_states=True).hidden_states
    real = BATCH["attention_mask"].bool()
    expected = sum(F.mse_loss(states[layer][real], states[4][real]) for layer in (1, 3))
    torch.testing.assert_close(values_of(model)[0], expected)


@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
def test_exits_of_other_tasks(task: str) -> None:
    model = learner_of(BYOT, EXITS, task=task)
    mask = BATCH["attention_mask"].bool()
    tokens = task == "token-classification"
    labels = torch.where(mask, 1, -100) if tokens else torch.tensor([[1, 2], [1, 3], [2, 2]])
    found = values_of(model, labels)
    states = model.student(**BATCH, output_hidden_states=True).hidden_states
    # What these heads read are the states themselves.
    hint = sum(F.mse_loss(states[layer][mask], states[4][mask]) for layer in (1, 3))
    torch.testing.assert_close(found[3], torch.as_tensor(hint))
    name = "classifier" if tokens else "qa_outputs"
    logits = [
        getattr(h, name)(states[n]) for h, n in zip(model.companions[0].heads, (1, 3), strict=True)
    ]
    if tokens:
        expected = sum(F.cross_entropy(one[mask], labels[mask]) for one in logits)
    else:
        parts = [one.masked_fill(~mask[..., None], -1e30).unbind(-1) for one in logits]
        expected = sum(
            (F.cross_entropy(a, labels[:, 0]) + F.cross_entropy(b, labels[:, 1])) / 2
            for a, b in parts
        )
    torch.testing.assert_close(found[1], torch.as_tensor(expected))


def test_where_exits_are() -> None:
    assert exit_layers(2, 6) == (2, 4)
    assert exit_layers(3, 12) == (3, 6, 9)
    assert exit_layers(2, 3) == (1, 2)
    assert exit_layers((1, 5), 6) == (1, 5)
    with pytest.raises(ConfigError, match="2 exits before the last layer need a student of 3 lay"):
        exit_layers(2, 2)
    with pytest.raises(ConfigError, match="after layer 6 is not before the last of the student's"):
        exit_layers((2, 6), 6)
    with pytest.raises(ConfigError, match="exits need different layers, the shallowest first"):
        learner_of(BYOT, {**EXITS, "layers": [3, 1]})
    with pytest.raises(ConfigError, match="fill-mask has no small head to repeat"):
        learner_of(BYOT, EXITS, task="fill-mask")


def test_features_of_another_width_are_projected() -> None:
    student = make_student()
    stage = Stage.build({"terms": [{"match": "features", "loss": "cosine"}]}, where="recipe")
    shapes = [Shape.of(make_config("bert", hidden_size=size)) for size in (16, 8)]
    model = Learner(student, stage, Setting(*shapes, None)).eval()
    teacher = make_student(hidden_size=8)
    taught = LiveTeacher(teacher, model.needs)(BATCH)
    found = model(BATCH, LABELS, taught, model.totals(model.tally({**BATCH, "labels": LABELS})))
    ours, theirs = (one.bert(**BATCH).pooler_output for one in (student, teacher))
    projected = ours @ model.objectives[0].projection.weight.T
    torch.testing.assert_close(found[0], (1 - F.cosine_similarity(projected, theirs)).mean())


def test_features_of_a_head_over_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="fill-mask has no head to compare: use match: hidden"):
        learner_of(
            [{"match": "features", "teacher": "stale", "follow": "own"}], COPIES, task="fill-mask"
        )


COPIES = {"kind": "copies", "of": "student"}
SNAPSHOT = {**COPIES, "name": "snapshot", "every": "1/3", "waits": True}
FOLLOW = {"match": "logits", "teacher": "snapshot", "follow": "own", "temperature": 2}


def test_a_snapshot_is_silent_until_a_cycle_ends_and_then_stands_still() -> None:
    model = learner_of([{"match": "labels"}, FOLLOW], SNAPSHOT)
    before = [model.student.classifier.weight.clone()]
    kept, terms = [], []
    for step in range(8):
        model.advance(step, 8)
        kept.append(model.companions[0].models[0].classifier.weight.clone())
        terms.append(values_of(model)[1].detach())
        with torch.no_grad():
            model.student.classifier.weight[0] += 0.1
        before.append(model.student.classifier.weight.clone())
    # Of 8 steps, thirds begin with the steps 3 and 6.
    assert [round(float(value), 6) == 0 for value in terms] == [
        *(True, True, True),
        *(True, False, False, True, False),
    ]
    for step in (3, 4, 5):
        assert torch.equal(kept[step], before[3])
    for step in (6, 7):
        assert torch.equal(kept[step], before[6])


def test_a_silent_snapshot_gives_no_gradient_and_a_speaking_one_its_kl() -> None:
    model = learner_of([FOLLOW], SNAPSHOT)
    model.advance(0, 3)
    values_of(model).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.student.parameters())
    model.advance(1, 3)
    with torch.no_grad():
        model.student.classifier.weight *= -1
    teacher = model.companions[0].models[0]
    expected = kl(model.student(**BATCH).logits, teacher(**BATCH).logits, 2).mean()
    torch.testing.assert_close(values_of(model)[0], expected)
    values_of(model).sum().backward()
    assert model.student.classifier.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("steps", range(3, 40))
def test_snapshots_are_made_where_the_learning_rate_starts_again(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = transformers.get_scheduler(
        "cosine_with_restarts", optimizer, 0, steps, {"num_cycles": 3}
    )
    model = learner_of([{"match": "labels"}, FOLLOW], SNAPSHOT)
    rises, changes, last = [], [], 0.0
    for step in range(steps):
        rate = schedule.get_last_lr()[0]
        if step and rate > last:
            rises.append(step)
        last = rate
        with torch.no_grad():
            model.student.classifier.bias.fill_(float(step))
        model.advance(step, steps)
        if model.companions[0].models[0].classifier.bias[0] == step and step:
            changes.append(step)
        optimizer.step()
        schedule.step()
    assert len(changes) == 2
    assert changes == rises or steps < 6


@pytest.mark.parametrize("every", ["0/3", "4/3", "1/0"])
def test_a_share_of_a_stage_is_one(every: str) -> None:
    with pytest.raises(ConfigError, match=f"every: {every} is no share of a stage: use 1/3"):
        learner_of([FOLLOW], {**SNAPSHOT, "every": every})


def test_cycles_need_a_cosine_without_warm_up() -> None:
    values = {"terms": [{"match": "labels"}], "cycles": 3}
    with pytest.raises(ConfigError, match="set schedule: cosine and warmup_ratio: 0"):
        Stage.build({**values, "schedule": "cosine"}, where="recipe")
    with pytest.raises(ConfigError, match="set schedule: cosine and warmup_ratio: 0"):
        Stage.build({**values, "warmup_ratio": 0}, where="recipe")


VIRTUAL = {"kind": "virtual", "probability": 0.9}
FREE = [{"match": "logits", "teacher": "virtual", "temperature": 4}]


def softened(chances: Sequence[float], temperature: float) -> list[float]:
    powers = [p ** (1 / temperature) for p in chances]
    return [power / sum(powers) for power in powers]


def test_a_virtual_teacher_of_classes() -> None:
    """Yuan et al. 2020: 0.9 on the right one of three classes, 0.05 on the others."""
    model = learner_of(FREE, VIRTUAL, labels=("a", "b", "c"))
    right, wrong, _ = softened([0.9, 0.05, 0.05], 4)
    p = torch.full((3, 3), wrong)
    p[torch.arange(3), LABELS] = right
    q = (model.student(**BATCH).logits / 4).softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean() * 16
    torch.testing.assert_close(values_of(model)[0], expected)


def test_a_virtual_teacher_is_silent_on_rows_without_a_label() -> None:
    model = learner_of(FREE, VIRTUAL)
    some = values_of(model, torch.tensor([0, -100, -100]))[0]
    one = {name: value[:1] for name, value in BATCH.items()}
    torch.testing.assert_close(some, values_of(model, LABELS[:1], one)[0] / 3)


def test_a_virtual_teacher_of_several_labels() -> None:
    problem = "multi_label_classification"
    model = learner_of([{**FREE[0], "temperature": 1}], VIRTUAL, problem=problem)
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    p = torch.where(labels == 1, 0.9, 0.1)
    q = model.student(**BATCH).logits.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1).mean()
    torch.testing.assert_close(values_of(model, labels)[0], expected)


def test_a_virtual_teacher_of_tags_and_of_answers() -> None:
    mask = BATCH["attention_mask"].bool()
    tags = learner_of([{**FREE[0], "temperature": 1}], VIRTUAL, task="token-classification")
    labels = torch.where(mask, 1, -100)
    q = tags.student(**BATCH).logits.softmax(-1)[mask]
    p = torch.tensor([0.1, 0.9])
    torch.testing.assert_close(values_of(tags, labels)[0], (p * (p / q).log()).sum(-1).mean())
    spans = learner_of([{**FREE[0], "temperature": 1}], VIRTUAL, task="question-answering")
    positions = torch.tensor([[1, 2], [1, 3], [2, 2]])
    output = spans.student(**BATCH)
    total = torch.tensor(0.0)
    for row in range(3):
        count = int(mask[row].sum())
        for logits, position in zip(
            (output.start_logits, output.end_logits), positions[row], strict=True
        ):
            p = torch.full((count,), 0.1 / (count - 1))
            p[position] = 0.9
            total += (p * (p / logits[row, :count].softmax(-1)).log()).sum() / 6
    torch.testing.assert_close(values_of(spans, positions)[0], total)


def test_a_virtual_teacher_needs_classes() -> None:
    with pytest.raises(ConfigError, match="companion virtual: a score has no classes to be sure"):
        learner_of(FREE, VIRTUAL, problem="regression", labels=("score",))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.of(make_tokenizer(), folder=Path("nowhere"))


def samples_of(tokenizer: Tokenizer, texts: list[str], targets: Any, **pairs: Any) -> Samples:
    return Samples(tokenizer.encode(texts, max_length=32, **pairs), np.asarray(targets), tokenizer)


def viewed(samples: Samples, *kinds: str, seed: int = 0) -> Samples:
    names = {kind: kind for kind in kinds}
    targets = np.asarray(samples.targets)
    samples.views.update(companion_views(samples.own, targets, names, seed=seed))
    return samples


def seen(samples: Samples, view: str, row: int) -> Encoding:
    """What a view has for a row in this epoch."""
    return samples.read_by(view).encodings[row]


TEXTS = ["fine film", "awful plot", "great music scene", "sad actor", "lovely", "long film"]


def test_partners_are_of_the_same_class_and_change(tokenizer: Tokenizer) -> None:
    targets = [0, 1, 0, 1, 0, 2]
    rows = viewed(samples_of(tokenizer, TEXTS, targets), "partner")
    by_text = {tuple(e.input_ids): i for i, e in enumerate(rows.encodings)}
    met: dict[int, set[int]] = {i: set() for i in range(6)}
    for epoch in range(30):
        rows.set_epoch(epoch)
        batch = rows.collate([rows[i] for i in range(6)])
        for row in range(6):
            length = int(batch["partner.attention_mask"][row].sum())
            met[row].add(by_text[tuple(batch["partner.input_ids"][row, :length].tolist())])
    assert met == {0: {2, 4}, 1: {3}, 2: {0, 4}, 3: {1}, 4: {0, 2}, 5: {5}}


def test_partners_follow_from_seed_epoch_and_row(tokenizer: Tokenizer) -> None:
    samples = samples_of(tokenizer, TEXTS * 5, [0, 1, 0, 1, 0, 1] * 5)
    batches = []
    for seed, epoch, rows in ((0, 0, range(30)), (0, 0, range(29, -1, -1)), (1, 0, range(30))):
        found = viewed(samples, "partner", seed=seed)
        found.set_epoch(epoch)
        batches.append(found.collate([found[i] for i in rows])["partner.input_ids"])
    assert torch.equal(batches[0], batches[1].flip(0))
    assert not torch.equal(batches[0], batches[2])


def test_partners_of_several_labels_and_of_none(tokenizer: Tokenizer) -> None:
    several = viewed(samples_of(tokenizer, TEXTS[:4], [[1, 0], [1, 1], [1, 0], [0, 1]]), "partner")
    assert seen(several, "partner", 0).input_ids == several.encodings[2].input_ids
    assert seen(several, "partner", 1).input_ids == several.encodings[1].input_ids
    none = viewed(samples_of(tokenizer, TEXTS[:3], [-100, -100, 0]), "partner")
    assert seen(none, "partner", 0).input_ids == none.encodings[0].input_ids


PARTNER = [{"match": "logits", "teacher": "partner", "temperature": 4}]


def test_a_partner_is_followed_and_learns_nothing() -> None:
    """Yun et al. 2020: T^2 KL(answer to the partner, standing still || own answer)."""
    model = learner_of(PARTNER, {"kind": "partner"})
    other = BATCH["input_ids"].flip(0)
    batch = {**BATCH, "partner.input_ids": other, "partner.attention_mask": (other > 0).long()}
    mask = {"attention_mask": (other > 0).long()}
    theirs = model.student(input_ids=other, **mask).logits.detach()
    ours = model.student(**BATCH).logits
    expected = kl(ours, theirs, 4).mean()
    found = values_of(model, batch=batch)[0]
    torch.testing.assert_close(found, expected)
    gradients = [
        torch.autograd.grad(value, model.student.classifier.weight)[0]
        for value in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("task", "problem", "what"),
    [
        ("text-classification", "regression", "a score"),
        ("token-classification", None, "token-classification"),
    ],
)
def test_partners_need_a_class_of_the_text(task: str, problem: str | None, what: str) -> None:
    with pytest.raises(ConfigError, match=f"another text of the same class, {what} has none"):
        learner_of(PARTNER, {"kind": "partner"}, task=task, problem=problem)


CHANGES = ("mask", "shuffle", "swap")


def test_changed_texts_keep_their_words(tokenizer: Tokenizer) -> None:
    texts = ["fine film long plot actor scene music", "sad"]
    pairs = ["great awful poor lovely", "film music"]
    rows = viewed(samples_of(tokenizer, texts, [0, 1], pairs=pairs), *CHANGES)
    ids = rows.encodings[0].input_ids
    first, second = slice(1, 8), slice(9, 13)
    swapped = seen(rows, "swap", 0).input_ids
    assert swapped == [2, *ids[4:8], *ids[1:4], 3, *ids[11:13], *ids[9:11], 3]
    shuffled = set()
    for epoch in range(20):
        rows.set_epoch(epoch)
        found = seen(rows, "shuffle", 0)
        assert found.token_type_ids == rows.encodings[0].token_type_ids
        new = found.input_ids
        for window in (slice(1, 5), slice(5, 8), second):
            assert sorted(new[window]) == sorted(ids[window])
        shuffled.add(tuple(new))
        masked = seen(rows, "mask", 0).input_ids
        for part, count in ((first, 2), (second, 1)):
            hidden = [i for i in range(part.start, part.stop) if masked[i] == 4]
            assert len(hidden) == count
        assert all(a in (b, 4) for a, b in zip(masked, ids, strict=True))
    assert len(shuffled) > 10


def test_pieces_of_a_word_stay_together() -> None:
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "un",
        "##like",
        "##ly",
        "so",
        "it",
        "is",
    ]
    inner = tokenizers.Tokenizer(
        models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer = Tokenizer.of(whole, folder=Path("nowhere"))
    rows = viewed(samples_of(tokenizer, ["it is so unlikely"], [0]), *CHANGES)
    assert rows.encodings[0].input_ids == [2, 9, 10, 8, 5, 6, 7, 3]
    assert seen(rows, "swap", 0).input_ids == [2, 8, 5, 6, 7, 9, 10, 3]
    for epoch in range(20):
        rows.set_epoch(epoch)
        ids = seen(rows, "shuffle", 0).input_ids
        assert ids[ids.index(5) :][:3] == [5, 6, 7]
        hidden = seen(rows, "mask", 0).input_ids
        assert [hidden[i] == 4 for i in (4, 5, 6)] in ([True] * 3, [False] * 3)


def test_masking_needs_a_mask() -> None:
    plain = make_tokenizer()
    plain.mask_token = None
    tokenizer = Tokenizer.of(plain, folder=Path("nowhere"))
    with pytest.raises(ConfigError, match="cannot be masked: the tokenizer has no mask token"):
        viewed(samples_of(tokenizer, TEXTS, [0, 1] * 3), "mask")


SLA = [
    {"match": "labels", "learner": "view", "weight": 0.5},
    {"match": "logits", "teacher": "aggregate"},
]
CHANGED = {"kind": "transformed", "changes": ["swap"]}


def with_views() -> dict[str, Tensor]:
    other = BATCH["input_ids"][:, [0, 2, 1, 3, 4]]
    return {**BATCH, "view-2.input_ids": other, "view-2.attention_mask": BATCH["attention_mask"]}


def test_class_and_change_are_told_together() -> None:
    """Lee et al. 2020: joint labels y * M + j, the aggregate, and following it."""
    model = learner_of(SLA, CHANGED)
    batch = with_views()
    joint, student = model.companions[0].head, model.student
    texts = [batch["input_ids"], batch["view-2.input_ids"]]
    pooled = [
        student.bert(input_ids=ids, attention_mask=batch["attention_mask"]).pooler_output
        for ids in texts
    ]
    scores = [joint(one) for one in pooled]
    # Rows of the head are sorted by change, then by class.
    told = sum(F.cross_entropy(score, j * 2 + LABELS) for j, score in enumerate(scores))
    together = (scores[0][:, :2] + scores[1][:, 2:]) / 2
    followed = kl(student(**BATCH).logits, together).mean()
    found = values_of(model, batch=batch)
    torch.testing.assert_close(found, torch.stack([torch.as_tensor(told), followed]))


def test_every_way_of_reading_teaches_the_student_and_the_aggregate_stands_still() -> None:
    model = learner_of(SLA, CHANGED)
    told, followed = values_of(model, batch=with_views())
    weight = model.student.bert.embeddings.word_embeddings.weight
    assert torch.autograd.grad(told, weight, retain_graph=True)[0].abs().max() > 0
    head = model.companions[0].head.weight
    assert not torch.autograd.grad(followed, head, retain_graph=True)[0].any()
    assert torch.autograd.grad(followed, model.student.classifier.weight)[0].abs().max() > 0


def test_changed_texts_are_for_one_class_a_text() -> None:
    problem = "multi_label_classification"
    with pytest.raises(ConfigError, match=f"together with its change, {problem} has none"):
        learner_of(SLA, CHANGED, problem=problem)
    with pytest.raises(ConfigError, match="together with its change, question-answering has none"):
        learner_of(SLA, CHANGED, task="question-answering")


@pytest.fixture
def run(taught: Path, data: dict[str, Path], tmp_path: Path) -> Callable[..., DistillResult]:
    def distil_with(recipe: str, **values: Any) -> DistillResult:
        own = {"batch_size": 16, "epochs": 3, "recipe": recipe}
        return distil_tiny(taught, data, tmp_path / "student", **{**own, **values})

    return distil_with


@pytest.mark.parametrize("recipe", SELF)
def test_each_trains_without_asking_a_teacher(
    run: Callable[..., DistillResult], tmp_path: Path, recipe: str
) -> None:
    assert not load_recipe(recipe).needs_teacher
    result = run(recipe)
    assert result.value is not None and result.value > 0.9
    student = open_checkpoint(tmp_path / "student")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(student.path)
    assert sum(p.numel() for p in loaded.parameters()) == result.parameters
    with (tmp_path / "student" / "training_log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    terms = [name for name in rows[0] if name.split("_")[0] in ("labels", "logits", "features")]
    assert len(terms) == len(load_recipe(recipe).stages[0].terms)
    assert all(any(float(row[name]) > 0 for row in rows) for name in terms)
    assert (student.path / "exits").is_dir() == (recipe == "byot")


def test_exits_are_kept_and_answer(
    run: Callable[..., DistillResult], data: dict[str, Path], tmp_path: Path
) -> None:
    result = run("byot")
    student = open_checkpoint(tmp_path / "student")
    assert json.loads((student.path / "exits" / "config.json").read_text()) == {
        "exit_layers": [1, 3],
        "threshold": 0.2,
    }
    early = load_early_exit(student)
    assert (early.exit_layers, early.threshold) == ((1, 3), 0.2)
    table = get_task("text-classification", labels=("negative", "positive")).read(data["eval"])
    report = measure_exits(student, table, max_length=32)
    assert report.depths[-1].value == result.value
    assert all(depth.value > 0.9 for depth in report.depths)


def test_the_learning_rate_of_snapshots_goes_round(
    run: Callable[..., DistillResult], tmp_path: Path
) -> None:
    run("snapshot", batch_size=4)
    with (tmp_path / "student" / "training_log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    rates = [float(row["learning_rate"]) for row in rows]
    assert sum(b > a for a, b in pairwise(rates)) == 2
    third = len(rows) // 3
    assert {float(row["logits"]) for row in rows[:third]} == {0.0}
    assert all(float(row["logits"]) > 0 for row in rows[third + 1 :])


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let training end as by Ctrl-C before a step."""
    with monkeypatch.context() as patch:

        def stop(at: int) -> None:
            step, count = DistillTrainer.training_step, 0

            def interrupt(self: Any, *args: Any) -> Any:
                nonlocal count
                count += 1
                if count == at:
                    patch.undo()
                    raise KeyboardInterrupt
                return step(self, *args)

            patch.setattr(DistillTrainer, "training_step", interrupt)

        yield stop


# 3 steps an epoch: in the middle of the second, with a snapshot made and another one to come.
@pytest.mark.parametrize("recipe", SELF)
def test_what_is_resumed_ends_where_an_uninterrupted_run_does(
    run: Callable[..., DistillResult],
    tmp_path: Path,
    stop_at: Callable[[int], None],
    recipe: str,
) -> None:
    run(recipe, output=tmp_path / "whole")
    stop_at(6)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, save_seconds=0)
    run(recipe, save_seconds=0)
    files = ["model.safetensors", "training_log.csv"]
    files += ["exits/model.safetensors"] if recipe == "byot" else []
    for name in files:
        whole, continued = tmp_path / "whole" / name, tmp_path / "student" / name
        assert whole.read_bytes() == continued.read_bytes(), name


@pytest.mark.parametrize("recipe", ["class-wise", "sla"])
def test_other_tasks_are_refused_before_training(
    recipe: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    rows = tmp_path / "tags.conll"
    rows.write_text("fine A\nfilm B\n\nawful B\nplot A\n\n")
    teacher = make_checkpoint(auto="AutoModelForTokenClassification", labels=("A", "B"))
    config = {"teacher": str(teacher), "train": str(rows), "recipe": recipe}
    with pytest.raises(ConfigError, match="token-classification has none: use text classification"):
        distill(DistillConfig.build({**config, "output": tmp_path / "out"}, where="test"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", ["byot", "snapshot", "teacher-free"])
def test_tags_are_trained(
    recipe: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    rows = tmp_path / "tags.conll"
    rows.write_text("fine A\nfilm B\n\nawful B\nplot A\n\n" * 8)
    teacher = make_checkpoint(auto="AutoModelForTokenClassification", labels=("A", "B"))
    config = {"teacher": str(teacher), "train": str(rows), "eval": str(rows), "recipe": recipe}
    settings = {"epochs": 1, "batch_size": 8, "output": tmp_path / "out"}
    result = distill(DistillConfig.build({**config, **settings}, where="test"))
    assert result.value is not None
    assert open_checkpoint(tmp_path / "out").task.name == "token-classification"


@pytest.mark.parametrize("recipe", SELF)
def test_a_batch_in_parts_gives_the_same_step(
    recipe: str, make_checkpoint: Callable[..., Path], data: dict[str, Path], tmp_path: Path
) -> None:
    quiet = make_checkpoint(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    found = []
    for parts in (1, 4):
        stage = load_recipe(recipe).stages[0].model_dump(mode="json", exclude_defaults=True)
        stage |= {"batch_size": 16 // parts, "gradient_accumulation": parts, "epochs": 2}
        # Adam would make steps of what is 0 but for rounding, as a key's bias has.
        stage["adam_epsilon"] = 1e-3
        file = tmp_path / f"{parts}.yaml"
        file.write_text(json.dumps({"name": "parts", "summary": "s", "stages": [stage]}))
        config = {"teacher": str(quiet), "train": str(data["train"]), "recipe": str(file)}
        settings = {"student": "layers=1/1", "learning_rate": 1e-3, "output": tmp_path / str(parts)}
        distill(DistillConfig.build({**config, **settings}, where="test"))
        files = sorted((tmp_path / str(parts)).glob("**/*.safetensors"))
        found.append([load_file(one) for one in files])
    for whole, pieces in zip(*found, strict=True):
        for name, value in whole.items():
            torch.testing.assert_close(pieces[name], value, rtol=0, atol=2e-5)


def test_features_go_through_a_cache(tokenizer: Tokenizer) -> None:
    labels = ("negative", "positive")
    for task, shape in (("text-classification", (3, 8)), ("token-classification", (3, 5, 8))):
        features = torch.randn(shape)
        logits = torch.randn(*shape[:-1], 2)
        said = Signals({"logits": logits}, {1: torch.randn(3, 5, 8)}, features={0: features})
        parts = parts_of(said, get_task(task, labels=labels), dtype="float32", top_k=None)
        names = wanted(names_of(frozenset({Need("features", 0)})), parts)
        assert set(names) == {"features.0", "outputs.logits"}
        assert parts["features.0"].each == ("row" if len(shape) == 2 else "token")
        back = signals_of(lambda name, parts=parts: parts[name].values, names, None)
        assert torch.equal(back.features[0], features)
        assert torch.equal(back.outputs["logits"], logits)
