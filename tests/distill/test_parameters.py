"""The term on weights: which are compared, through which projections, and where those start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from distill.objectives import Batch, Learner
from distill.objectives.parameters import Parameters
from distill.recipe.config import Stage
from distill.recipe.terms import ParametersTerm
from distill.signals.capture import Signals
from distill.signals.shapes import Setting, Shape
from edge.errors import ConfigError
from tests.distill.conftest import distil_tiny, make_config

NARROW: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 16}


def model(seed: int, model_type: str = "bert", **changes: Any) -> Any:
    torch.manual_seed(seed)
    config = make_config(model_type, **{"num_hidden_layers": 2, **changes})
    return AutoModelForSequenceClassification.from_config(config).eval()


def objective(student: Any, teacher: Any, same_words: bool = True, **term: Any) -> Parameters:
    ours, theirs = Shape.of(student.config), Shape.of(teacher.config)
    models = {"student": student, "teacher": teacher}
    setting = Setting(ours, theirs, None, same_words=same_words, models=models)
    return Parameters(ParametersTerm(match="parameters", **term), setting)


def value(of: Parameters) -> float:
    nothing = Batch(Signals({}), {}, None, torch.ones(1, 1), {})
    return of(nothing).item()


def weights(of: Any) -> dict[str, Tensor]:
    return {name: one.detach().double() for name, one in of.named_parameters()}


def test_without_projections_it_is_the_mean_squared_difference() -> None:
    student, teacher = model(1), model(2)
    found = objective(student, teacher)
    assert not list(found.parameters())
    ours, theirs = weights(student), weights(teacher)
    total = sum((ours[name] - theirs[name]).square().sum() for name in ours)
    count = sum(one.numel() for one in ours.values())
    assert value(found) == pytest.approx(float(total) / count, rel=1e-5)
    assert value(objective(teacher, teacher)) == 0


def test_layers_follow_the_map() -> None:
    student, teacher = model(1), model(2, num_hidden_layers=4)
    ours, theirs = weights(student), weights(teacher)

    def by_hand(mapped: dict[int, int]) -> float:
        total = count = 0.0
        for name, one in ours.items():
            number = next((i for i in range(2) if f"layer.{i}." in name), None)
            if number is not None and number not in mapped:
                continue
            if number is not None:
                name = name.replace(f"layer.{number}.", f"layer.{mapped[number]}.")
            total += float((one - theirs[name]).square().sum())
            count += one.numel()
        return total / count

    uniform = objective(student, teacher)
    assert value(uniform) == pytest.approx(by_hand({0: 1, 1: 3}), rel=1e-5)
    last = objective(student, teacher, layers=[[2, 1]])
    assert value(last) == pytest.approx(by_hand({1: 0}), rel=1e-5)


def test_one_projection_for_all_of_the_same_sizes() -> None:
    student, teacher = model(1, **NARROW), model(2)
    found = objective(student, teacher)
    names = {name: tuple(one.shape) for name, one in found.named_parameters()}
    assert names == {
        "projections.down.matrices.8x16": (8, 16),
        "projections.down.matrices.16x32": (16, 32),
        "projections.up.matrices.16x8": (16, 8),
        "projections.up.matrices.32x16": (32, 16),
    }
    torch.manual_seed(0)
    with torch.no_grad():
        for one in found.parameters():
            one.normal_()
    matrices = {
        name.rpartition(".")[2]: one.detach().double() for name, one in found.named_parameters()
    }
    ours, theirs = weights(student), weights(teacher)

    def projected(given: Tensor, shape: torch.Size) -> Tensor:
        """Rows, then columns: A x B^T."""
        for axis, (wide, old) in enumerate(zip(shape, given.shape, strict=True)):
            if wide != old:
                matrix = matrices[f"{wide}x{old}"]
                given = matrix @ given if axis == 0 else given @ matrix.T
        return given

    values = []
    for wanted, given in ((ours, theirs), (theirs, ours)):
        total = sum(
            (projected(given[n], one.shape) - one).square().sum() for n, one in wanted.items()
        )
        values.append(float(total) / sum(one.numel() for one in wanted.values()))
    assert value(found) == pytest.approx(sum(values) / 2, rel=1e-5)
    for direction, wanted_value in zip(("down", "up"), values, strict=True):
        half = objective(student, teacher, direction=direction)
        assert {name.split(".")[1] for name, _ in half.named_parameters()} == {direction}
        state = {n: v for n, v in found.state_dict().items() if f".{direction}." in n}
        half.load_state_dict(state)
        assert value(half) == pytest.approx(wanted_value, rel=1e-5)


def test_projections_start_where_least_squares_put_them() -> None:
    """Where a student's weights are its teacher's projected, they are found again."""
    student, teacher = model(1, **NARROW), model(2)
    torch.manual_seed(0)
    down = {(8, 16): torch.randn(8, 16), (16, 32): torch.randn(16, 32)}
    with torch.no_grad():
        for name, one in student.named_parameters():
            given = teacher.get_parameter(name)
            for axis, sizes in enumerate(zip(one.shape, given.shape, strict=True)):
                if sizes in down:
                    given = torch.tensordot(down[sizes], given, ([1], [axis])).movedim(0, axis)
            one.copy_(given)
    other = model(3, **NARROW)

    def share(of: Any) -> float:
        """What is left, of the mean square of the student's own weights."""
        own = weights(of).values()
        square = sum(float(one.square().sum()) for one in own) / sum(one.numel() for one in own)
        return value(objective(of, teacher, direction="down")) / square

    assert share(student) < 0.02
    assert share(other) > 0.2


def test_rows_of_other_tokens_are_not_compared() -> None:
    student, teacher = model(1), model(2)
    before = value(objective(student, teacher, same_words=False))
    with torch.no_grad():
        student.get_input_embeddings().weight.add_(1)
    assert value(objective(student, teacher, same_words=False)) == before
    assert value(objective(student, teacher)) > before


def test_gradients_reach_student_and_projections_alone() -> None:
    student, teacher = model(1, **NARROW), model(2)
    found = objective(student, teacher)
    batch = Batch(Signals({}), {}, None, torch.ones(1, 1), {})
    found(batch).backward()
    assert all(one.grad is not None for one in (*found.parameters(), *student.parameters()))
    assert all(one.grad is None for one in teacher.parameters())
    # The models' own weights belong to nobody else.
    assert len(found.state_dict()) == 4


def test_the_teacher_is_not_asked() -> None:
    student, teacher = model(1), model(2)
    stage = Stage.build({"terms": [{"match": "parameters"}, {"match": "labels"}]})
    setting = Setting(Shape.of(student.config), Shape.of(teacher.config), None)
    learner = Learner(student, stage, setting, None, teacher)
    assert learner.asked == {}
    batch = {"input_ids": torch.tensor([[2, 5, 3]]), "attention_mask": torch.ones(1, 3).long()}
    labels = torch.tensor([1])
    totals = learner.totals(learner.tally({**batch, "labels": labels}))
    values = learner.eval()(batch, labels, None, totals)
    assert values[0].item() == pytest.approx(value(objective(student, teacher)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "architecture=bilstm,hidden=8"}, "one name and form, and student .bilstm."),
        ({"terms": {"layers": "emd"}}, "Input should be 'uniform', 'skip' or 'last'"),
        ({"terms": {"direction": "left"}}, "direction: Input should be 'down', 'up' or 'both'"),
        ({"terms": {"layers": [[9, 1]]}}, "layer 9 does not exist: the student has layers 1 to 2"),
        ({"terms": {"teacher": "ensemble"}}, "parameters compares the weights of two models, and"),
    ],
)
def test_weights_that_cannot_be_compared(
    changes: dict[str, Any], message: str, checkpoint: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "own.yaml"
    term = {"match": "parameters", **changes.get("terms", {})}
    companions = ""
    if "teacher" in term:
        companions = "companions: [{kind: ensemble, name: ensemble, of: teacher}]\n    "
    recipe.write_text(
        f"name: own\nsummary: x\nstages:\n  - {companions}terms: [{{match: labels}}, {term}]\n"
    )
    with pytest.raises(ConfigError, match=message):
        distil_tiny(
            checkpoint,
            data,
            tmp_path / "out",
            recipe=str(recipe),
            student=changes.get("student", "layers=2"),
        )


def test_shared_layers_cannot_be_mapped() -> None:
    from transformers import AlbertConfig

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = AlbertConfig(**sizes, num_hidden_layers=2, vocab_size=17)
    albert = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ConfigError, match="albert keeps no list of layers whose .*: use match: hi"):
        objective(albert, model(2))


def test_a_run(make_checkpoint: Callable[..., Path], data: dict[str, Path], tmp_path: Path) -> None:
    """A narrower student comes nearer to its teacher's weights; nothing of it is exported."""
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "name: own\nsummary: x\nstages:\n"
        "  - terms: [{match: labels}, {match: parameters, weight: 10}]\n"
    )
    distil_tiny(
        make_checkpoint(),
        data,
        tmp_path / "out",
        recipe=str(recipe),
        student="layers=2,hidden=8,heads=2",
        epochs=4,
    )
    lines = (tmp_path / "out" / "training_log.csv").read_text().splitlines()
    column = lines[0].split(",").index("parameters")
    found = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    assert found[-1] < found[0]
    _, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
