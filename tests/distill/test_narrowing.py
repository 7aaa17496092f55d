"""Narrower students made of their teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.student import parse_spec
from distill.students import Student, Teacher, build_student
from edge.data import Table
from edge.errors import ConfigError, UserError
from tests.distill.conftest import open_teacher

WORDS = ("fine", "great", "lovely", "awful", "poor", "sad", "film", "plot", "actor", "scene")
TEXTS = [" ".join(WORDS[(i * k) % 10] for k in range(1, 4 + i % 5)) for i in range(60)]
TABLE = Table("data.tsv", TEXTS, None, ["1", "0"] * 30)


def make(spec: str, teacher: Teacher) -> Student:
    return build_student(parse_spec(spec), teacher, TABLE, seed=0)


def states(model: Any, tokenizer: Any) -> list[Any]:
    """Every hidden state of all real tokens, (tokens, width) each."""
    import torch

    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        found = model.eval()(**given, output_hidden_states=True).hidden_states
    return [state[real].double() for state in found]


def random(*shape: int, seed: int = 0) -> Any:
    import torch

    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_units_that_others_tell_are_not_kept() -> None:
    from distill.students.projection import chosen_units

    x = random(500, 6)
    x[:, 4] = x[:, 0] + 2 * x[:, 1]
    x[:, 5] *= 0.1
    assert chosen_units(x.T.cov(), 4).tolist() in ([0, 2, 3, 4], [1, 2, 3, 4])


def test_principal_components_sum_to_zero_and_carry_the_most() -> None:
    import torch

    from distill.students.projection import principal

    covariance = (random(500, 8) @ random(8, 8, seed=1)).T.cov()
    found = principal(covariance, 5)
    assert found.sum(0).abs().max() < 1e-12
    values = torch.linalg.eigvalsh(covariance).flip(0)
    assert (found @ covariance @ found.T).trace() == pytest.approx(values[:4].sum())
    rows = torch.linalg.svdvals(found)
    torch.testing.assert_close(rows, torch.tensor([1.0, 1, 1, 1, 0]).double(), atol=1e-8, rtol=0)


def test_the_way_back_is_that_of_least_squares() -> None:
    import torch

    from distill.students.projection import principal, way_back

    x = random(400, 7) @ random(7, 7, seed=1) + 3
    mean, covariance = x.mean(0), x.T.cov(correction=0)
    for projection in (random(3, 7, seed=2), principal(covariance, 4)):
        y = x @ projection.T
        ones = torch.ones(len(x), 1, dtype=torch.float64)
        oracle = torch.linalg.lstsq(torch.cat([y, ones], 1), x, driver="gelsd").solution
        back, constant = way_back(projection, mean, covariance)
        torch.testing.assert_close(y @ back.T + constant, torch.cat([y, ones], 1) @ oracle)


def heads_of(count: int, size: int, width: int = 6) -> Any:
    from distill.students.projection import Heads

    parts = (random(count, size, width + 1, seed=s) for s in range(3))
    return Heads(*parts, random(count, size, width, seed=3), random(width, seed=4))


def attend(heads: Any, x: Any) -> Any:
    """Scores (heads, L, L) and output (L, width) of attention written out."""
    import torch

    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    query, key, value = (ones @ part.transpose(1, 2) for part in heads_parts(heads))
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
    return scores, (scores.softmax(-1) @ value @ heads.output).sum(0) + heads.bias


def heads_parts(heads: Any) -> tuple[Any, Any, Any]:
    return heads.query, heads.key, heads.value


def test_smaller_heads_lose_nothing_that_was_not_there() -> None:
    import torch

    from distill.students.projection import Heads, smaller_heads

    small, mix = heads_of(2, 3), random(2, 5, 3, seed=9)
    # The same three directions, spread over five units.
    back = torch.linalg.pinv(mix).transpose(1, 2)
    large = Heads(
        mix @ small.query * math.sqrt(5 / 3),
        back @ small.key,
        mix @ small.value,
        back @ small.output,
        small.bias,
    )
    x = random(4, 6, seed=7)
    for before, after in zip(attend(large, x), attend(smaller_heads(large, 3), x), strict=True):
        torch.testing.assert_close(before, after)


def test_joined_heads_look_where_their_parts_do_on_average() -> None:
    import torch

    from distill.students.projection import joined_heads

    heads, x = heads_of(4, 2), random(5, 6, seed=7)
    found = joined_heads(heads, 2)
    assert found.query.shape == (2, 4, 7)
    torch.testing.assert_close(attend(found, x)[0][0], attend(heads, x)[0][:2].mean(0))


def test_padded_heads_answer_as_before() -> None:
    import torch

    from distill.students.projection import padded_heads

    heads, x = heads_of(2, 3), random(5, 6, seed=7)
    found = padded_heads(heads, random(2, 2, 7, seed=8), random(2, 2, 7, seed=9))
    assert found.query.shape == (2, 5, 7)
    for before, after in zip(attend(heads, x), attend(found, x), strict=True):
        torch.testing.assert_close(before, after)


def test_heads_that_hardly_vary_leave_their_mean() -> None:
    import torch

    from distill.students.projection import fewer_heads

    heads = heads_of(3, 2)
    mean = random(3, 2, seed=8)
    variance = torch.tensor([[1.0, 1.0], [0.0, 0.001], [1.0, 1.0]]).double()
    found = fewer_heads(heads, mean, variance, 2)
    assert torch.equal(found.query, heads.query[[0, 2]])
    torch.testing.assert_close(found.bias, heads.bias + mean[1] @ heads.output[1])


def test_moments_and_lines_are_numpy_s() -> None:
    import numpy as np

    from distill.students.calibration import Line, Moments

    x, y = random(50, 3), random(50, 3, seed=1) + 2 * random(50, 3)
    full, diagonal, line = Moments(full=True), Moments(full=False), Line()
    for start in (0, 20):
        stop = start + (20 if start == 0 else 30)
        full.add(x[start:stop])
        diagonal.add(x[start:stop])
        line.add(x[start:stop], y[start:stop])
    np.testing.assert_allclose(full.mean, x.mean(0))
    np.testing.assert_allclose(full.spread, np.cov(x.numpy().T, bias=True))
    np.testing.assert_allclose(diagonal.spread, x.numpy().var(0))
    slope, intercept = line.fit()
    for unit in range(3):
        expected = np.polyfit(x[:, unit].numpy(), y[:, unit].numpy(), 1)
        np.testing.assert_allclose([slope[unit], intercept[unit]], expected)


def test_watched_modules_tell_of_real_tokens_only(checkpoint: Path) -> None:
    from distill.students.calibration import calibration_batches, watch

    teacher, seen = open_teacher(checkpoint), []
    batches = calibration_batches(TABLE, teacher.tokenizer, 32)
    name = "bert.encoder.layer.1.intermediate.dense"
    watch(teacher.model, batches, {name: lambda given, _: seen.append(given)})
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    assert sum(len(rows) for rows in seen) == tokens
    assert len(batches) == 2 and tokens < sum(batch["input_ids"].numel() for batch in batches)
    module = teacher.model.get_submodule(name)
    assert not module._forward_hooks


def test_neurons_that_do_nothing_are_the_ones_left_out(
    make_checkpoint: Callable[..., Path],
) -> None:
    """Half of them are constant; without those the student answers as its teacher does."""
    import torch

    teacher = open_teacher(make_checkpoint(seed=5))
    for layer in teacher.model.bert.encoder.layer:
        with torch.no_grad():
            layer.intermediate.dense.weight[::2] = 0
    student = make("layers=0,1,2,3,intermediate=16", teacher)
    assert student.model.config.intermediate_size == 16
    pairs = zip(
        states(student.model, teacher.tokenizer),
        states(teacher.model, teacher.tokenizer),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def told(student: Any, teacher: Any) -> float:
    """How much of the teacher's variance a line through the student's state explains."""
    import torch

    ours = torch.cat([student, torch.ones(len(student), 1, dtype=torch.float64)], 1)
    left = teacher - ours @ torch.linalg.lstsq(ours, teacher, driver="gelsd").solution
    return 1 - float(left.square().sum() / (teacher - teacher.mean(0)).square().sum())


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "distilbert"])
def test_narrower_students_know_more_of_their_teacher_s_states(
    model_type: str, make_checkpoint: Callable[..., Path]
) -> None:
    teacher = open_teacher(make_checkpoint(model_type, initializer_range=0.2))
    theirs = states(teacher.model, teacher.tokenizer)
    found = {}
    for init in ("random", "slice", "svd"):
        student = make(f"layers=0,1,2,3,hidden=8,init={init}", teacher)
        assert student.copied_layers is None
        ours = states(student.model, teacher.tokenizer)
        found[init] = [told(a, b) for a, b in zip(ours, theirs, strict=True)]
    means = {init: sum(values) / len(values) for init, values in found.items()}
    assert means["random"] < means["slice"], found
    assert means["random"] < means["svd"], found
    # The embeddings are a plain projection, of which principal components are the best.
    assert found["slice"][0] < found["svd"][0], found


@pytest.mark.parametrize("auto", ["MaskedLM", "TokenClassification", "QuestionAnswering"])
@pytest.mark.parametrize("spec", ["hidden=8,heads=2", "hidden=8,heads=1,init=svd", "hidden=12"])
def test_every_weight_of_every_task_has_a_place(
    make_checkpoint: Callable[..., Path], auto: str, spec: str
) -> None:
    """Nothing stays as it was born, and the same SPEC gives the same weights."""
    import torch

    teacher = open_teacher(make_checkpoint(auto=f"AutoModelFor{auto}"))
    first, again = (make(f"layers=2,{spec}", teacher).model for _ in range(2))
    born = make(f"layers=2,{spec},init=random", teacher).model.state_dict()
    for name, value in first.state_dict().items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, again.state_dict()[name]), name
        assert value.ndim == 1 or not torch.equal(value, born[name]), name
    if auto == "MaskedLM":
        assert first.get_output_embeddings().weight is first.get_input_embeddings().weight


def test_embeddings_alone_become_narrower(make_checkpoint: Callable[..., Path]) -> None:
    import torch

    teacher = open_teacher(make_checkpoint("electra"))
    student = make("layers=0,1,2,3,embedding=6", teacher)
    assert student.model.electra.embeddings.word_embeddings.weight.shape == (17, 6)
    ours, theirs = (model.electra.encoder for model in (student.model, teacher.model))
    assert all(
        torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items()
    )


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("layers=2,hidden=32", ConfigError, "hidden_size 32 is more than the teacher's 16"),
        ("layers=2,intermediate=64", ConfigError, "intermediate_size 64 is more than the teacher"),
        ("layers=2,hidden=12,heads=3", ConfigError, "heads=3 is more than the teacher's 2, which"),
        ("hidden=8,embedding=8", ConfigError, "bert reads its word embeddings at full width"),
    ],
)
def test_refusals(checkpoint: Path, spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(spec, open_teacher(checkpoint))


def test_architectures_whose_axes_are_not_known(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    teacher = open_teacher(tiny_checkpoint(tmp_path, "modernbert", labels=("a", "b")))
    with pytest.raises(UserError, match="modernbert cannot be made narrower, nothing is known of"):
        make("hidden=16,heads=1", teacher)
    assert make("hidden=16,heads=1,init=random", teacher).model.config.hidden_size == 16
    electra = open_teacher(tiny_checkpoint(tmp_path / "e", "electra", labels=("a", "b")))
    with pytest.raises(ConfigError, match="embedding=16 of hidden=16: the teacher's are 16 of 32"):
        make("hidden=16,embedding=16", electra)


def test_texts_that_are_all_alike_are_no_reason_to_fail(checkpoint: Path) -> None:
    """What reads the first token alone sees no variance at all."""
    import torch

    table = Table("alike.tsv", ["fine film"] * 8, None, [0, 1] * 4)
    student = build_student(parse_spec("hidden=8,heads=2"), open_teacher(checkpoint), table, seed=0)
    assert all(torch.isfinite(value).all() for value in student.model.state_dict().values())
