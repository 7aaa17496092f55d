from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge.data import Table, read_table
from edge.errors import ConfigError, StorageError, TrainingError
from tests.distill.conftest import open_teacher

WORDS = ("film", "plot", "good", "bad", "the", "was", "not", "is", "of", "zebra")


class World(NamedTuple):
    """A teacher and encoded rows of many lengths."""

    teacher: Any
    table: Table
    samples: Any

    def batch(self, rows: list[int], extra: int = 0) -> dict[str, Any]:
        """Some rows, padded by `extra` more columns."""
        import torch

        batch = self.samples.batch(list(rows))
        batch = {name: torch.nn.functional.pad(value, (0, extra)) for name, value in batch.items()}
        return {**batch, "rows": torch.tensor(rows)}

    def identity(self, **options: Any) -> Any:
        from distill.teachers import identify

        return identify(self.teacher, self.table, **{"max_length": 16, **options})

    def cached(self, folder: Path, *needs: tuple[str, int], **options: Any) -> Any:
        from distill.teachers import cached_teacher

        return cached_teacher(
            folder,
            self.teacher,
            self.samples,
            _needs(*needs),
            identity=self.identity(**options),
        )


def _needs(*needs: tuple[str, int]) -> Any:
    from distill.signals.capture import Need

    return frozenset(Need(*need) for need in needs)


def make_world(folder: Path, rows: int = 40) -> World:
    from distill.data.views import View
    from edge.tokenization import Tokenizer

    teacher = open_teacher(folder)
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 12))) for _ in range(rows)]
    table = Table("rows.tsv", texts, None, [0] * rows)
    tokenizer = Tokenizer.of(teacher.tokenizer, folder=folder)
    samples = View(tokenizer.encode(texts, max_length=16), tokenizer)
    return World(teacher, table, samples)


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def world(folder: Path) -> World:
    return make_world(folder)


INSIDE = [
    (field, layer)
    for field in ("hidden_states", "attention_scores", "queries", "keys", "values")
    for layer in (1, 2)
]


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert", "mpnet"])
def test_what_is_read_is_what_the_teacher_says(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    """Every field, in batches of other lengths and paddings than those that were asked."""
    import torch

    from distill.signals.capture import LiveTeacher

    world = make_world(tiny_checkpoint(tmp_path / "teacher", architecture))
    needs = [*INSIDE, ("hidden_states", 0)]
    cached = world.cached(tmp_path / "cache", *needs, dtype="float32")
    live = LiveTeacher(world.teacher.model, _needs(*needs))
    windows = 0
    for rows in ([3, 17, 0], [39], list(range(10, 20))):
        batch = world.batch(rows, extra=2)
        mask = batch["attention_mask"].bool()
        expected, found = live(batch), cached(batch)
        torch.testing.assert_close(found.outputs, expected.outputs, rtol=1e-4, atol=1e-5)
        for field in (*{name for name, _ in needs}, "attended"):
            ours, theirs = getattr(found, field), getattr(expected, field)
            assert field == "attended" or list(ours) == sorted(theirs)
            for layer, value in theirs.items():
                assert ours[layer].shape == value.shape
                real = _real(field, mask).expand(value.shape)
                torch.testing.assert_close(
                    ours[layer][real], value[real], rtol=1e-4, atol=1e-4, msg=f"{field} {layer}"
                )
                assert not ours[layer][~real].any()
            # A batch shorter than the window has no mask, or one that is true everywhere.
            for layer in set(ours) - set(theirs):
                assert ours[layer][_real(field, mask)].all()
        windows += len(found.attended) + len(expected.attended)
    assert bool(windows) == (architecture == "modernbert")


def _real(field: str, mask: Any) -> Any:
    """Where a field speaks of real tokens."""
    if field in {"attention_scores", "attended"}:
        return mask[:, None, :, None] & mask[:, None, None, :]
    return mask[:, :, None] if field == "hidden_states" else mask[:, None, :, None]


def test_half_the_size_at_half_the_precision(world: World, tmp_path: Path) -> None:
    from edge.storage import size_bytes

    states = [("hidden_states", 1), ("hidden_states", 2)]
    whole = world.cached(tmp_path / "whole", *states, dtype="float32")
    half = world.cached(tmp_path / "half", *states)
    batch = world.batch([1, 2, 3])
    for layer in (1, 2):
        a, b = (teacher(batch).hidden_states[layer] for teacher in (whole, half))
        assert str(b.dtype) == "torch.float32"
        assert 0 < float((a - b).abs().max()) < 2e-3 * float(a.abs().max())
    # Answers are few, and kept as they are.
    assert (whole(batch).outputs["logits"] == half(batch).outputs["logits"]).all()
    tokens = int(world.samples.lengths.sum())
    files = [size_bytes(tmp_path / name / "hidden_states.1.bin") for name in ("whole", "half")]
    assert files == [tokens * 32 * 4, tokens * 32 * 2]


def test_answers_for_each_token(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    from distill.signals.capture import LiveTeacher

    for task, names in {
        "token-classification": {"logits"},
        "question-answering": {"start_logits", "end_logits"},
    }.items():
        world = make_world(tiny_checkpoint(tmp_path / task, task=task))
        batch = world.batch([5, 6, 7])
        expected = LiveTeacher(world.teacher.model, _needs())(batch).outputs
        found = world.cached(tmp_path / f"{task}-cache")(batch).outputs
        assert set(found) == names
        mask = batch["attention_mask"].bool()
        for name in names:
            assert float((found[name] - expected[name])[mask].abs().max()) < 1e-5


def test_the_best_tokens_of_a_masked_lm(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Their probabilities are the teacher's own; the rest is spread over the other tokens."""
    import torch

    from distill.signals.capture import LiveTeacher

    world = make_world(tiny_checkpoint(tmp_path / "teacher", task="fill-mask"))
    batch = world.batch([5, 6, 7])
    mask = batch["attention_mask"].bool()
    logits = LiveTeacher(world.teacher.model, _needs())(batch).outputs["logits"]
    expected = logits.softmax(-1)[mask]
    found = world.cached(tmp_path / "cache", top_k=4)(batch).outputs["logits"].softmax(-1)[mask]
    assert found.shape == expected.shape
    best, tokens = expected.topk(4, dim=-1)
    torch.testing.assert_close(found.gather(-1, tokens), best, rtol=1e-4, atol=1e-6)
    rest = found.scatter(-1, tokens, 0.0)
    size = found.shape[-1] - 4
    expected_rest = (1 - best.sum(-1, keepdim=True)) / size
    torch.testing.assert_close(rest.amax(-1, keepdim=True), expected_rest, rtol=1e-3, atol=1e-6)
    whole = world.cached(tmp_path / "whole")(batch).outputs["logits"][mask]
    torch.testing.assert_close(whole, logits[mask], rtol=1e-4, atol=1e-5)


def test_a_second_run_asks_nobody(world: World, tmp_path: Path) -> None:
    world.cached(tmp_path / "cache", *INSIDE)
    world.teacher.model.forward = None
    again = world.cached(tmp_path / "cache", ("hidden_states", 2))
    found = again(world.batch([1]))
    assert list(found.hidden_states) == [2]
    assert not found.queries


class _Counter:
    """Counts the rows a model is asked about, and may stop it."""

    def __init__(self, model: Any, stop_at: int | None = None, error: Any = None) -> None:
        self.rows, self._stop_at, self._error = 0, stop_at, error
        self._forward = model.forward
        # The wrapper's signature is what tells which inputs a model reads.
        model.forward = self._wrap()

    def _wrap(self) -> Any:
        def forward(
            input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, **options: Any
        ) -> Any:
            self.rows += len(input_ids)
            if self._stop_at is not None and self.rows > self._stop_at:
                raise self._error
            return self._forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                **options,
            )

        return forward


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_interrupted_fill_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    import distill.teachers.cache as cache

    monkeypatch.setattr(cache, "_BATCH_TOKENS", 40)
    monkeypatch.setattr(cache, "_FLUSH_SECONDS", 0.0)
    states = [("hidden_states", 2)]
    make_world(folder).cached(tmp_path / "whole", *states)
    stopped = make_world(folder)
    _Counter(stopped.teacher.model, stop_at=20, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        stopped.cached(tmp_path / "cache", *states)
    stage = tmp_path / ".cache.filling"
    done = json.loads((stage / "rows_done.json").read_text())
    assert 0 < done < 20
    assert not (tmp_path / "cache").exists()
    # As a kill in the middle of a batch would leave it.
    with (stage / "hidden_states.2.bin").open("ab") as file:
        file.write(b"half a row")
    resumed = make_world(folder)
    counter = _Counter(resumed.teacher.model)
    resumed.cached(tmp_path / "cache", *states)
    # One row more tells the shapes.
    assert counter.rows == 40 - done + 1
    assert files_of(tmp_path / "cache") == files_of(tmp_path / "whole")
    assert not stage.exists()
    said = capfd.readouterr().err
    assert f"{stage} is kept: the same command continues from there" in said
    assert f"continuing the teacher cache kept in {stage}" in said


def test_what_an_interrupted_fill_of_another_teacher_left_is_not_used(
    world: World, tmp_path: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    other = make_world(tiny_checkpoint(tmp_path / "other", seed=5))
    _Counter(other.teacher.model, stop_at=1, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        other.cached(tmp_path / "cache")
    stage = tmp_path / ".cache.filling"
    (stage / "rows_done.json").write_text("30")
    found = world.cached(tmp_path / "cache")(world.batch([0]))
    again = world.cached(tmp_path / "again")(world.batch([0]))
    assert (found.outputs["logits"] == again.outputs["logits"]).all()


def test_a_full_disk_is_found_out_before_anything_is_asked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = _Counter(world.teacher.model)
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="no space left for .*cache: about 266 kB are needed"):
        world.cached(tmp_path / "cache", *INSIDE)
    assert counter.rows == 1
    assert not list(tmp_path.iterdir())


def fill_up(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let a disk be full when so many batches are on it."""
    from distill.teachers.store import Writer

    append, count = Writer.append, 0

    def full(self: Any, *args: Any) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, *args)

    monkeypatch.setattr("distill.teachers.cache._BATCH_TOKENS", 40)
    monkeypatch.setattr(Writer, "append", full)


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_up(monkeypatch, after=2)
    with pytest.raises(StorageError, match="no space left while writing .*cache: free some space"):
        world.cached(tmp_path / "cache")
    assert not list(tmp_path.iterdir())


def test_a_cache_of_something_else_is_refused(
    world: World, tmp_path: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    folder = tmp_path / "cache"
    world.cached(folder)
    before = files_of(folder)
    other = make_world(tiny_checkpoint(tmp_path / "other", seed=5))
    with pytest.raises(ConfigError, match="cache was made with another teacher: name another"):
        other.cached(folder)
    changed = world._replace(table=world.table.take([1, 0, *range(2, 40)]))
    with pytest.raises(
        ConfigError, match="made with other data, max_length 16 where this run has 8"
    ):
        changed.cached(folder, max_length=8)
    with pytest.raises(ConfigError, match="made with compute float32 where this run has bfloat16"):
        world.cached(folder, bf16=True)
    world.teacher.tokenizer.add_tokens(["zebra"])
    with pytest.raises(ConfigError, match="made with another tokenizer: name another folder or"):
        world.cached(folder)
    assert files_of(folder) == before


def test_a_cache_that_lacks_a_signal_gains_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill.teachers import cached_teacher

    folder = tmp_path / "cache"
    cached_teacher(
        folder,
        world.teacher,
        world.samples,
        _needs(("hidden_states", 1)),
        identity=world.identity(),
        keep=_needs(("queries", 2)),
    )
    before = files_of(folder)
    fill_up(monkeypatch, after=2)
    with pytest.raises(StorageError, match="no space left"):
        world.cached(folder, ("hidden_states", 2))
    monkeypatch.undo()
    assert files_of(folder) == before
    assert list(tmp_path.iterdir()) == [folder]
    first = world.cached(folder, ("hidden_states", 1), ("queries", 2))
    found = world.cached(folder, ("hidden_states", 2), ("queries", 2))(world.batch([0]))
    assert (list(found.hidden_states), list(found.queries)) == ([2], [2])
    after = files_of(folder)
    manifest = "cache.json"
    assert {name: after[name] for name in before if name != manifest} == {
        name: before[name] for name in before if name != manifest
    }
    assert after.keys() - before.keys() == {"hidden_states.2.bin"}
    # What was read before still is, and nothing is asked twice.
    assert list(first(world.batch([1])).hidden_states) == [1]
    monkeypatch.delattr("distill.teachers.cache._fill")
    world.cached(folder, ("hidden_states", 1), ("hidden_states", 2))
    assert list(tmp_path.iterdir()) == [folder]
    fresh = world.cached(tmp_path / "cache", ("hidden_states", 2))(world.batch([5, 7]))
    monkeypatch.undo()
    other = world.cached(tmp_path / "other", ("hidden_states", 2))(world.batch([5, 7]))
    assert fresh.hidden_states[2].equal(other.hidden_states[2])


def test_a_death_while_a_cache_gains_signals_loses_none(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is there already must not be taken for one that is full of nothing."""
    folder, replace, moved = tmp_path / "cache", Path.replace, []
    world.cached(folder, ("queries", 2))

    def dies(source: Path, target: Path) -> Path:
        if source.suffix == ".bin":
            if moved:
                raise KeyboardInterrupt
            moved.append(source)
        return replace(source, target)

    needs = [("hidden_states", 2), ("keys", 1)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", dies)
        world.cached(folder, *needs)
    assert moved
    (tmp_path / ".cache.filling" / ".rows_done.json.partial-abcdefgh").mkdir()
    world.cached(folder, *needs)
    world.cached(tmp_path / "other", *needs)
    for name in ("hidden_states.2.bin", "keys.1.bin"):
        assert files_of(folder)[name] == files_of(tmp_path / "other")[name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "other"]
    assert list(folder.glob(".*")) == []


def test_a_folder_that_is_no_cache(world: World, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not a teacher cache: name a folder that is empty"):
        world.cached(tmp_path)
    assert files_of(tmp_path) == {"notes.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    world.cached(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("outputs.logits.bin", "outputs.logits.bin has 100 bytes where 480 belong"),
        ("lengths.npy", "lengths.npy cannot be read"),
        ("cache.json", "cache.json cannot be read"),
    ],
)
def test_a_damaged_cache(world: World, tmp_path: Path, name: str, problem: str) -> None:
    world.cached(tmp_path / "cache")
    file = tmp_path / "cache" / name
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigError, match=f"cache is damaged: {problem}.*; remove it to fill it"):
        world.cached(tmp_path / "cache")


def test_texts_that_change_need_a_live_teacher(world: World, tmp_path: Path) -> None:
    cached = world.cached(tmp_path / "cache")
    batch = world.batch([4, 9])
    batch["input_ids"][1, 1] += 1
    with pytest.raises(TrainingError, match="row 9 is not what the teacher of .*cache read: texts"):
        cached(batch)


def test_a_teacher_whose_signals_are_no_numbers(world: World, tmp_path: Path) -> None:
    import torch

    with torch.no_grad():
        world.teacher.model.bert.encoder.layer[1].output.LayerNorm.weight.mul_(1e6)
    states = [("hidden_states", 2)]
    with pytest.raises(TrainingError, match="hidden_states.2 is not finite in float16 .* float32"):
        world.cached(tmp_path / "cache", *states)
    assert not list(tmp_path.iterdir())
    world.cached(tmp_path / "cache", *states, dtype="float32")


def test_two_that_need_the_same_cache_fill_it_once(folder: Path, tmp_path: Path) -> None:
    worlds = [make_world(folder) for _ in range(2)]
    counters = [_Counter(world.teacher.model) for world in worlds]
    found: list[Any] = []

    def run(world: World) -> None:
        found.append(world.cached(tmp_path / "cache")(world.batch([0, 1])).outputs["logits"])

    threads = [threading.Thread(target=run, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert (found[0] == found[1]).all()
    assert sorted(counter.rows for counter in counters) == [0, 41]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_real_teacher_once_and_for_all(shared: Path, sst2_teacher: Path, tmp_path: Path) -> None:
    from distill.signals.capture import LiveTeacher

    world = make_world(sst2_teacher, rows=2)
    table = read_table(shared / "data" / "sst2" / "train_sentences.tsv").head(24)
    tokenizer = world.samples.tokenizer
    encodings = tokenizer.encode(table.texts, max_length=64)
    samples = type(world.samples)(encodings, tokenizer)
    world = World(world.teacher, table, samples)
    batch = world.batch([3, 20, 11])
    found = world.cached(tmp_path / "cache", max_length=64)(batch).outputs["logits"]
    expected = LiveTeacher(world.teacher.model, _needs())(batch).outputs["logits"]
    assert float((found - expected).abs().max()) < 1e-4


def test_training_with_it_is_training_with_the_teacher(world: World, tmp_path: Path) -> None:
    """Rows without labels among them: those follow the teacher only."""
    import copy

    import torch

    from distill.augment import mix, targets_of
    from distill.data.batches import Samples
    from distill.objectives import Learner, Setting, Shape
    from distill.recipe.config import Stage
    from distill.signals.capture import LiveTeacher
    from distill.teachers import cached_teacher, identify
    from distill.training.trainer import DistillTrainer

    model, task = world.teacher.model, world.teacher.checkpoint.task
    unlabelled = Table("more", [f"{text} zebra" for text in world.table.texts[:8]], None, None)
    table = mix(world.table, unlabelled)
    targets = targets_of(task, table)
    tokenizer = world.samples.tokenizer
    samples = Samples(tokenizer.encode(table.texts, max_length=16), targets, tokenizer)
    terms = [{"match": "logits"}, {"match": "labels"}, {"match": "hidden_states", "layers": "last"}]
    stage = Stage.model_validate({"terms": [*terms, {"match": "hidden_states"}], "max_steps": 6})
    logs = []
    for kind in ("live", "cached"):
        student = copy.deepcopy(model).train().requires_grad_(True)
        with torch.no_grad():
            student.classifier.weight.mul_(-1)
            student.bert.encoder.layer[1].output.LayerNorm.weight.mul_(0.5)
        shape = Shape.of(model.config)
        learner = Learner(student, stage, Setting(shape, shape, task.problem_type))
        source: Any = LiveTeacher(model, learner.needs)
        if kind == "cached":
            identity = identify(world.teacher, table, max_length=16, dtype="float32")
            source = cached_teacher(
                tmp_path / "cache", world.teacher, samples.own, learner.needs, identity=identity
            )
            model.forward = None
        torch.manual_seed(0)
        trainer = DistillTrainer(
            learner, stage=stage, samples=samples, source=source, folder=tmp_path / kind
        )
        trainer.train()
        logs.append([row for row in trainer.state.log_history if "loss" in row])
    assert len(logs[0]) == len(logs[1]) == 6
    for live, cached in zip(*logs, strict=True):
        assert live["logits"] > 1e-3
        for name in ("loss", "logits", "labels", "hidden_states_2", "grad_norm"):
            assert cached[name] == pytest.approx(live[name], rel=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("config", "another teacher"),
        ("code", "another teacher"),
        ("tokenizer", "another tokenizer"),
        ("tool", "edge-encoders 0.1 where this run has 99"),
        ("words", "other data"),
    ],
)
def test_everything_that_decides_what_a_teacher_says_is_in_its_identity(
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    words: str,
) -> None:
    from dataclasses import replace

    import edge.provenance

    monkeypatch.setattr(edge.provenance, "__version__", "0.1")
    folder = tiny_checkpoint(tmp_path / "teacher")
    world = make_world(folder, rows=4)
    before = world.identity()
    assert make_world(folder, rows=4).identity() == before
    if change == "config":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    elif change == "code":
        (folder / "modeling.py").write_text("# code of a checkpoint\n")
    elif change == "tool":
        monkeypatch.setattr(edge.provenance, "__version__", "99")
    elif change == "tokenizer":
        values = json.loads((folder / "tokenizer_config.json").read_text())
        values["model_input_names"] = ["input_ids", "attention_mask"]
        (folder / "tokenizer_config.json").write_text(json.dumps(values))
    world = make_world(folder, rows=4)
    if change == "words":
        split = [text.split() for text in world.table.texts]
        world = world._replace(table=replace(world.table, words=split))
    assert world.identity().differences(before) == [words]
