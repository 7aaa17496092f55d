from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import TrainerCallback

from distill.recipe.config import Stage
from edge.errors import ConfigError, TrainingError
from tests.distill.conftest import open_teacher

LOGITS = {"match": "logits", "temperature": 2.0}
LABELS = {"match": "labels"}
HIDDEN = {"match": "hidden_states"}
# A layer map that is renewed, weights and temperatures that change.
MOVING: list[dict[str, Any]] = [
    {
        "match": "logits",
        "weight": {"start": 1, "end": 0.2, "shape": "cosine"},
        "temperature": {"start": 4, "end": 1, "until": 0.7},
    },
    {"match": "hidden_states", "layers": "emd", "remap_steps": 3},
]
VALUES = {"match": "relations", "of": "value"}


class World:
    """A teacher, a student of two layers without dropout, and encoded rows."""

    def __init__(self, folder: Path, data: dict[str, Path], spec: str = "layers=2") -> None:
        from distill.data.batches import Samples
        from distill.recipe.student import parse_spec
        from distill.students import build_student
        from distill.training.evaluation import Judge
        from edge.data import read_table
        from edge.tokenization import Tokenizer

        teacher = open_teacher(folder)
        table = read_table(data["train"])
        self.teacher = teacher.model
        self.student = build_student(parse_spec(spec), teacher, table, seed=0).model
        self.task = teacher.checkpoint.task
        self.tokenizer = Tokenizer.of(teacher.tokenizer, folder=folder)
        encodings = self.tokenizer.encode(table.texts, max_length=16)
        self.samples = Samples(encodings, self.task.targets(table), self.tokenizer)
        examples = self.task.examples(table, self.tokenizer, max_length=16)
        self.judge = Judge(self.task, examples, self.tokenizer)

    def learner(self, *terms: dict[str, Any], **values: Any) -> tuple[Any, Stage]:
        import torch

        from distill.objectives import Learner, Setting, Shape

        torch.manual_seed(0)
        stage = Stage.model_validate({"terms": terms, "warmup_ratio": 0.0, **values})
        shapes = [Shape.of(model.config) for model in (self.student, self.teacher)]
        setting = Setting(*shapes, self.task.problem_type)
        return Learner(copy.deepcopy(self.student), stage, setting, self._peer), stage

    def _peer(self, spec: str | None, number: int) -> Any:
        import torch

        torch.manual_seed(number)
        return type(self.student)(self.student.config)

    def trainer(self, folder: Path, *terms: dict[str, Any], **values: Any) -> Any:
        from distill.signals.capture import LiveTeacher
        from distill.training.trainer import DistillTrainer

        options = {key: values.pop(key) for key in ("save_seconds",) if key in values}
        learner, stage = self.learner(*terms, **values)
        return DistillTrainer(
            learner,
            stage=stage,
            samples=self.samples,
            source=LiveTeacher(self.teacher, learner.needs),
            folder=folder,
            **options,
        )


@pytest.fixture(scope="module")
def world(make_checkpoint: Callable[..., Path], data: dict[str, Path]) -> World:
    folder = make_checkpoint("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return World(folder, data)


@pytest.fixture(scope="module")
def narrow(make_checkpoint: Callable[..., Path], data: dict[str, Path]) -> World:
    return World(make_checkpoint("bert"), data, spec="layers=2,hidden=8")


def values_of(world: World, rows: list[int], *terms: dict[str, Any], extra: int = 0) -> Any:
    """Term values of one batch, padded by `extra` more columns."""
    import torch

    from distill.signals.capture import LiveTeacher

    batch = world.samples.collate([world.samples[row] for row in rows])
    labels = batch.pop("labels")
    batch = {name: torch.nn.functional.pad(value, (0, extra)) for name, value in batch.items()}
    learner, _ = world.learner(*terms)
    taught = LiveTeacher(world.teacher, learner.needs)(batch)
    totals = {
        "samples": torch.tensor(float(len(rows))),
        "tokens": batch["attention_mask"].sum().float(),
    }
    with torch.no_grad():
        return learner.eval()(batch, labels, taught, totals)


def test_padding_changes_no_term(world: World) -> None:
    import torch

    parts = [{**HIDDEN, "tokens": tokens} for tokens in ("first", "mean")]
    terms = LOGITS, LABELS, HIDDEN, *parts, {"match": "embeddings"}
    rows = [0, 1, 2, 3]
    plain, padded = (values_of(world, rows, *terms, extra=extra) for extra in (0, 7))
    torch.testing.assert_close(plain, padded, rtol=1e-4, atol=1e-6)
    assert (plain[:5] > 1e-3).all()
    # The student's embeddings are the teacher's own.
    assert plain[5] < 1e-9


@pytest.mark.parametrize("tokens", ["all", "first", "mean"])
def test_hidden_term_against_loops(world: World, tokens: str) -> None:
    """The mean over pairs of layers and over real tokens or texts, one after the other."""
    import torch

    rows = [0, 1, 2]
    found = values_of(world, rows, {**HIDDEN, "layers": [[1, 2], [2, 4]], "tokens": tokens})
    distances: list[float] = []
    for row in rows:
        ids = torch.tensor([world.samples[row][1][0].input_ids])
        with torch.no_grad():
            ours, theirs = (
                model.eval()(input_ids=ids, output_hidden_states=True).hidden_states
                for model in (world.student, world.teacher)
            )
        for s, t in ((1, 2), (2, 4)):
            differences = ours[s][0] - theirs[t][0]
            compared = {
                "all": list(differences),
                "first": [differences[0]],
                "mean": [sum(differences) / len(differences)],
            }
            distances += [float(one.square().mean()) for one in compared[tokens]]
    assert float(found[0]) == pytest.approx(np.mean(distances), rel=1e-4)


@pytest.mark.parametrize("inside", [HIDDEN, MOVING[1], VALUES], ids=str)
@pytest.mark.parametrize("parts", [4, 8])
def test_accumulating_a_batch_in_parts_gives_the_same_step(
    world: World, tmp_path: Path, parts: int, inside: dict[str, Any]
) -> None:
    """An epsilon far above any gradient makes Adam's step proportional to the gradient."""
    import torch

    def step(accumulation: int) -> tuple[dict[str, Any], dict[str, float]]:
        trainer = world.trainer(
            tmp_path, LOGITS, LABELS, inside, max_steps=2, batch_size=16 // accumulation,
            gradient_accumulation=accumulation, learning_rate=10.0, adam_epsilon=1e3,
        )  # fmt: skip
        trainer.train()
        return trainer.model.state_dict(), trainer.state.log_history[0]

    (whole, whole_log), (split, split_log) = step(1), step(parts)
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=0, atol=2e-5)
    for name in ("loss", "logits", "labels", inside["match"], "grad_norm"):
        assert split_log[name] == pytest.approx(whole_log[name], rel=1e-3)
    moved = (whole["student.classifier.weight"] - world.student.classifier.weight).abs().max()
    assert moved > 1e-4


# All terms that do not compare rows with each other.
EVERY: tuple[dict[str, Any], ...] = (
    LOGITS,
    LABELS,
    HIDDEN,
    {**HIDDEN, "tokens": "first", "loss": "normalized_mse"},
    {"match": "attention_scores"},
    {"match": "attention_probs"},
    VALUES,
    {"match": "flow"},
    {"match": "selectivity"},
    {"match": "labels", "learner": "peer-1"},
    {"match": "logits", "learner": "cohort", "teacher": "cohort"},
    {**HIDDEN, "learner": "peer-1", "teacher": "student", "layers": "uniform"},
)


def test_every_term_and_companion_accumulates(world: World, tmp_path: Path) -> None:
    def first(accumulation: int) -> dict[str, float]:
        trainer = world.trainer(
            tmp_path, *EVERY, companions=[{"kind": "peers"}], max_steps=2,
            batch_size=16 // accumulation, gradient_accumulation=accumulation,
        )  # fmt: skip
        for model in trainer.model.companions.modules():
            if hasattr(model, "p"):
                model.p = 0.0
        trainer.train()
        return {**trainer.state.log_history[0], "again": trainer.state.log_history[1]["loss"]}

    whole = first(1)
    assert len(whole.keys() & {"logits", "labels", "flow", "selectivity", "logits_2"}) == 5
    for parts in (4, 8):
        split = first(parts)
        for name, value in whole.items():
            assert split[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_the_loss_is_the_weighted_sum_of_the_terms(world: World, tmp_path: Path) -> None:
    terms = {**LOGITS, "weight": 0.3}, {**LABELS, "weight": 0.7}, {**HIDDEN, "weight": 5.0}
    trainer = world.trainer(tmp_path, *terms, max_steps=4, batch_size=8)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 4
    for row in rows:
        expected = 0.3 * row["logits"] + 0.7 * row["labels"] + 5 * row["hidden_states"]
        assert row["loss"] == pytest.approx(expected, rel=1e-4)


class _Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Calls somebody after a step."""

    def __init__(self, step: int, look: Callable[[], Any]) -> None:
        self._step, self._look = step, look

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            self._look()


def test_projections_are_trained_clipped_and_saved(narrow: World, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    trainer = narrow.trainer(
        tmp_path, HIDDEN, max_steps=3, batch_size=8, learning_rate=0.01, max_grad_norm=1e-4,
        save_seconds=0,
    )  # fmt: skip
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    clipped: list[float] = []
    clip = trainer.accelerator.clip_grad_norm_

    def clip_and_look(parameters: Any, *args: Any) -> Any:
        parameters = list(parameters)
        norm = clip(parameters, *args)
        clipped.append(
            float(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm())
        )
        assert any(p is projection for p in parameters)
        return norm

    projection = trainer.model.objectives[0].projections[0].weight
    trainer.accelerator.clip_grad_norm_ = clip_and_look
    at_step_2: list[Any] = []
    trainer.add_callback(_Watch(2, lambda: at_step_2.append(projection.detach().clone())))
    trainer.train()
    assert projection.shape == (16, 8)
    assert not torch.equal(projection, before["objectives.0.projections.0.weight"])
    assert max(clipped) <= 1.01e-4
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert torch.equal(saved["objectives.0.projections.0.weight"], at_step_2[0])
    assert not any("projection" in name for name in trainer.model.student.state_dict())


def test_projections_start_where_they_bring_states_nearest(narrow: World, tmp_path: Path) -> None:
    """Against least squares on the states that both models' modules give."""
    import torch

    trainer = narrow.trainer(tmp_path, HIDDEN, max_steps=1, batch_size=8, learning_rate=1e-12)
    trainer.train()
    batch = narrow.samples.collate([narrow.samples[row] for row in range(len(narrow.samples))])
    real = batch["attention_mask"].bool()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ours, theirs = [], []
    for model, states in ((narrow.student, ours), (narrow.teacher, theirs)):
        with torch.no_grad():
            found = model.eval()(**inputs, output_hidden_states=True).hidden_states
        states += [state[real].double().numpy() for state in found]
    (objective,) = trainer.model.objectives
    for projection, (s, t) in zip(objective.projections, objective.pairs, strict=True):
        x, y = ours[s], theirs[t]
        # The ridge, a thousandth of the mean square of a unit, as rows of data.
        ridge = np.sqrt(1e-3 * np.square(x).sum() / 8) * np.eye(8)
        padded = np.concatenate([x, ridge]), np.concatenate([y, np.zeros((8, 16))])
        expected = np.linalg.lstsq(*padded, rcond=None)[0]
        np.testing.assert_allclose(projection.weight.detach().T, expected, rtol=1e-3, atol=1e-4)
        assert np.square(x @ expected - y).mean() < np.square(y).mean() / 2


@pytest.mark.parametrize(("layers", "named"), [((3,), "layer 3"), ((1, 3), "layers 1 and 3")])
def test_a_first_token_that_says_nothing_is_told(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    layers: tuple[int, ...],
    named: str,
) -> None:
    """One whose state is the same in every text; the teacher's others do differ."""
    term = {**HIDDEN, "tokens": "first", "layers": [[1, 1], [2, 3]]}
    trainer = world.trainer(tmp_path, term, max_steps=1, learning_rate=1e-4)
    source = trainer._sources["teacher"]

    def still(inputs: Any) -> Any:
        signals = source(inputs)
        states = dict(signals.hidden_states)
        for layer in layers:
            states[layer] = states[layer].clone()
            states[layer][:, 0] = 1.0
        return signals._replace(hidden_states=states)

    trainer._sources["teacher"] = still
    trainer.train()
    said = [line for line in capsys.readouterr().err.splitlines() if "hardly differs" in line]
    assert said == [
        "train: the first token's state hardly differs from text to text in teacher's "
        f"{named}, so it tells little: use tokens: all, or mean"
    ]


def test_the_teacher_is_not_trained(world: World, tmp_path: Path) -> None:
    import torch

    before = {name: value.clone() for name, value in world.teacher.state_dict().items()}
    trainer = world.trainer(tmp_path, LOGITS, HIDDEN, max_steps=2, learning_rate=0.01)
    trainer.train()
    assert not world.teacher.training
    for name, value in world.teacher.state_dict().items():
        assert torch.equal(value, before[name])
    ours = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not ours & {id(p) for p in world.teacher.parameters()}


@pytest.mark.parametrize("terms", [(LOGITS, HIDDEN), MOVING], ids=["still", "moving"])
def test_a_run_that_is_resumed_ends_where_an_uninterrupted_one_does(
    narrow: World, tmp_path: Path, terms: Sequence[dict[str, Any]]
) -> None:
    """With dropout, projections, and a stop in the middle of an epoch."""
    import torch

    settings: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3}
    through = narrow.trainer(tmp_path / "a", *terms, **settings)
    through.train()
    stopped = narrow.trainer(tmp_path / "b", *terms, save_seconds=0, **settings)
    step, count = stopped.training_step, 0

    def fail_in_the_middle(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt
        return step(*args)

    stopped.training_step = fail_in_the_middle
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = narrow.trainer(tmp_path / "b", *terms, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-8"))
    assert resumed.state.global_step == through.state.global_step == 18
    for name, value in through.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


@pytest.mark.parametrize("batch", [0, 3])
def test_a_loss_that_is_not_finite_stops_the_run(world: World, tmp_path: Path, batch: int) -> None:
    trainer = world.trainer(tmp_path, LABELS, HIDDEN, max_steps=6, save_seconds=0)
    source, count = trainer._sources["teacher"], 0

    def broken(inputs: Any) -> Any:
        nonlocal count
        signals = source(inputs)
        if count == batch:
            states = {layer: state * float("nan") for layer, state in signals.hidden_states.items()}
            signals = signals._replace(hidden_states=states)
        count += 1
        return signals

    trainer._sources["teacher"] = broken
    with pytest.raises(TrainingError, match=f"'hidden_states' became nan at step {batch + 1}:"):
        trainer.train()
    kept = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert kept == ([f"checkpoint-{batch - 1}", f"checkpoint-{batch}"] if batch else [])


def test_a_weight_that_is_not_finite_is_not_saved(world: World, tmp_path: Path) -> None:
    import torch

    trainer = world.trainer(tmp_path, LABELS, max_steps=2, save_seconds=0)
    with torch.no_grad():
        trainer.model.student.bert.pooler.dense.weight.register_hook(lambda g: g * float("nan"))
    with pytest.raises(TrainingError, match=r"weight '.*' is not finite at step 1"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_loss_that_is_not_finite_after_the_last_log_is_found(
    world: World, tmp_path: Path
) -> None:
    trainer = world.trainer(tmp_path, LABELS, max_steps=5)
    trainer.args.logging_steps = trainer.state.logging_steps = 4
    step = trainer.training_step

    def break_the_last(model: Any, *args: Any) -> Any:
        if trainer.state.global_step == 4:
            model.student.classifier.bias.data.fill_(float("inf"))
        return step(model, *args)

    trainer.training_step = break_the_last
    trainer.train()
    with pytest.raises(TrainingError, match="term 'labels' became (nan|inf) at step 5:"):
        trainer.save_model(str(tmp_path / "end"))
    assert not (tmp_path / "end").exists()


def test_an_architecture_without_hidden_states_is_refused(world: World) -> None:
    import torch

    from distill.signals.capture import Need, capture

    model = copy.deepcopy(world.student)
    forward = model.forward

    def silent(input_ids: Any, output_hidden_states: bool = False) -> Any:
        return forward(input_ids=input_ids)

    model.forward = silent
    with pytest.raises(TrainingError, match="gives 0 hidden states where its 2 layers"):
        needs = frozenset({Need("hidden_states", 1)})
        capture(model, {"input_ids": torch.tensor([[2, 3]])}, needs)


def test_a_term_that_needs_a_teacher_without_one(world: World) -> None:
    from distill.objectives import Learner, Setting, Shape

    stage = Stage.model_validate({"terms": [LOGITS]})
    setting = Setting(Shape.of(world.student.config), None, None)
    with pytest.raises(ConfigError, match="learns from a teacher: name it with --teacher"):
        Learner(world.student, stage, setting)


def test_a_layer_that_is_not_there(world: World) -> None:
    with pytest.raises(ConfigError, match="layer 3 does not exist: the student has layers 1 to 2"):
        world.learner({**HIDDEN, "layers": [[3, 4]]})


def test_terms_of_weight_0_cost_nothing(world: World) -> None:
    learner, _ = world.learner(LOGITS, LABELS, LABELS, {**HIDDEN, "weight": 0})
    assert learner.names == ["logits", "labels", "labels_2"]
    assert learner.needs == frozenset()


def test_batches_are_bucketed_shuffled_and_complete() -> None:
    from distill.data.batches import BucketSampler

    lengths = np.random.default_rng(0).integers(3, 60, size=1003)
    sampler = BucketSampler(lengths, 16, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(1003))
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(BucketSampler(lengths, 16, seed=2)) != first

    def padded(order: list[int]) -> float:
        batches = [lengths[order[i : i + 16]] for i in range(0, len(order), 16)]
        return float(sum(len(batch) * batch.max() for batch in batches) / lengths.sum())

    assert padded(first) < 1.1 < 1.5 < padded(list(range(1003)))
    means = [lengths[first[i : i + 16]].mean() for i in range(0, 992, 16)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5


def test_evaluation_keeps_the_order_of_rows(world: World) -> None:
    import torch

    model = world.student.train()
    name, value = world.judge(model)
    assert name == "accuracy"
    assert model.training
    correct = []
    model.eval()
    for _, (encoding,), target in world.samples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([encoding.input_ids])).logits
        correct.append(int(logits.argmax()) == int(target))
    assert value == pytest.approx(np.mean(correct))


def test_half_written_training_checkpoints_are_passed_over(tmp_path: Path) -> None:
    from distill.training.resume import TrainingState
    from distill.training.states import seal

    for step in (8, 9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").touch()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    seal(tmp_path / "checkpoint-8", None)
    seal(tmp_path / "checkpoint-9", None)
    state = TrainingState(tmp_path)
    assert state.last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert not (tmp_path / "checkpoint-10").exists()
    shutil.rmtree(tmp_path / "checkpoint-9")
    shutil.rmtree(tmp_path / "checkpoint-8")
    assert state.last_checkpoint(tmp_path) is None
