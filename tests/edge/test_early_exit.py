"""Exits: what they answer, when a text leaves, how they are kept, and models cut at them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import typer
from typer.testing import CliRunner

from edge.checkpoint import Checkpoint, load_model, open_checkpoint
from edge.cli.exits import exits as exits_command
from edge.data import Table
from edge.errors import CheckpointError, ConfigError, UserError
from edge.evaluate import evaluate_checkpoint, score
from edge.exits import cut_exit, measure_exits
from edge.models.bilstm import BiLSTMConfig, BiLSTMForSequenceClassification
from edge.models.exits import (
    EarlyExit,
    ExitsConfig,
    check_exits,
    cut,
    load_early_exit,
    new_head,
    uncertainty,
    write_exits,
)
from edge.reference import Reference
from edge.tasks import get_task
from tests.distill.conftest import SIZES, make_config, make_tokenizer, write_rows

TEXTS = ["fine film", "awful plot actor", "long scene music great", "sad", "lovely lovely poor"]
AUTO = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
EXITS = (1, 3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _model(model_type: str = "bert", task: str = "text-classification", **changes: Any) -> Any:
    torch.manual_seed(1)
    config = make_config(model_type, **changes)
    return getattr(transformers, AUTO[task]).from_config(config).eval()


def _heads(model: Any) -> dict[int, Any]:
    """Heads that differ from each other and from the model's own."""
    heads = {}
    for layer in EXITS:
        torch.manual_seed(layer)
        heads[layer] = new_head(model).eval()
        for parameter in heads[layer].parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    return heads


def _batch(texts: list[str], model_type: str = "bert") -> dict[str, torch.Tensor]:
    found = make_tokenizer()(texts, padding=True, return_tensors="pt")
    if model_type in {"roberta", "distilbert"}:
        found.pop("token_type_ids")
    return dict(found)


def _early(model: Any, threshold: float, task: str = "text-classification") -> EarlyExit:
    labels = ("negative", "positive")
    return EarlyExit(model, _heads(model), get_task(task, labels=labels), threshold)


@pytest.mark.parametrize("model_type", SIZES)
@pytest.mark.parametrize("task", AUTO)
def test_no_threshold_is_the_model_bit_for_bit(model_type: str, task: str) -> None:
    model = _model(model_type, task)
    batch = _batch(TEXTS, model_type)
    with torch.inference_mode():
        plain, found = model(**batch), _early(model, 0.0, task)(**batch)
    assert found["layers"].tolist() == [4] * len(TEXTS)
    for name in get_task(task).outputs:
        assert torch.equal(found[name], plain[name])


@pytest.mark.parametrize("model_type", SIZES)
@pytest.mark.parametrize("task", AUTO)
def test_a_large_threshold_is_the_model_cut_at_the_first_exit(model_type: str, task: str) -> None:
    model = _model(model_type, task)
    early = _early(model, 2.0, task)
    batch = _batch(TEXTS[:1], model_type)
    small = cut(model, early.heads[0], 1)
    assert small.config.num_hidden_layers == 1 and model.config.num_hidden_layers == 4
    with torch.inference_mode():
        found, expected = early(**batch), small(**batch)
        again = model(**batch)
    assert found["layers"].tolist() == [1]
    for name in get_task(task).outputs:
        assert torch.equal(found[name], expected[name])
        assert not torch.allclose(found[name], again[name])


def test_layers_after_the_exit_do_not_run() -> None:
    model = _model()
    ran: list[int] = []
    for index, layer in enumerate(model.bert.encoder.layer, start=1):
        layer.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    with torch.inference_mode():
        _early(model, 2.0)(**_batch(TEXTS))
        assert ran == [1]
        ran.clear()
        # What was interrupted runs again as if nothing had been.
        _early(model, 0.0)(**_batch(TEXTS))
    assert ran == [1, 2, 3, 4]


def test_each_text_of_a_batch_leaves_where_it_would_alone() -> None:
    model = _model()
    with torch.inference_mode():
        doubts = torch.stack([doubt for _, doubt in _early(model, 0.0).depths(**_batch(TEXTS))])
        # Between the texts' doubts at the first exit: some leave there, some go on.
        threshold = float(doubts[0].sort().values[2:4].mean())
        early = _early(model, threshold)
        together = early(**_batch(TEXTS))
        alone = [early(**_batch([text])) for text in TEXTS]
    assert set(together["layers"].tolist()) > {1}
    assert together["layers"].tolist() == [int(one["layers"]) for one in alone]
    logits = torch.cat([one["logits"] for one in alone])
    torch.testing.assert_close(together["logits"], logits, rtol=0, atol=1e-5)


def _entropy(*chances: float) -> float:
    return -sum(p * math.log(p) for p in chances)


def test_uncertainty_of_a_class() -> None:
    task = get_task("text-classification", labels=("a", "b", "c"))
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]]))
    found = uncertainty(task, {"logits": logits}, torch.ones(2, 3))
    assert found.tolist() == pytest.approx([_entropy(0.7, 0.2, 0.1) / math.log(3), 1.0])


def test_uncertainty_of_several_labels_is_that_of_the_least_certain() -> None:
    problem = "multi_label_classification"
    task = get_task("text-classification", labels=("a", "b"), problem_type=problem)
    logits = torch.logit(torch.tensor([[0.99, 0.6], [0.9, 0.05]]))
    found = uncertainty(task, {"logits": logits}, torch.ones(2, 3))
    worst = [_entropy(0.6, 0.4), _entropy(0.9, 0.1)]
    assert found.tolist() == pytest.approx([value / math.log(2) for value in worst], rel=1e-5)


def test_uncertainty_of_tags_leaves_out_padding_and_special_tokens() -> None:
    task = get_task("token-classification", labels=("O", "B"))
    chances = torch.tensor([[0.5, 0.9, 0.8, 0.5]])
    logits = torch.stack([chances, 1 - chances], -1).log()
    mask = torch.tensor([[1, 1, 1, 0]])
    special = torch.tensor([[True, False, False, False]])
    found = uncertainty(task, {"logits": logits}, mask, special)
    assert found.tolist() == pytest.approx([_entropy(0.8, 0.2) / math.log(2)])
    assert uncertainty(task, {"logits": logits}, mask).tolist() == pytest.approx([1.0])


def test_uncertainty_of_an_answer_is_over_its_tokens() -> None:
    start = torch.tensor([[0.5, 0.25, 0.25, 1e9]]).log()
    end = torch.tensor([[0.9, 0.05, 0.05, 1e9]]).log()
    outputs = {"start_logits": start, "end_logits": end}
    found = uncertainty(get_task("question-answering"), outputs, torch.tensor([[1, 1, 1, 0]]))
    assert found.tolist() == pytest.approx([_entropy(0.5, 0.25, 0.25) / math.log(3)])


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "mpnet", "modernbert"])
def test_architectures_whose_exits_answer_as_a_cut_model(model_type: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    ids = {f"{name}_token_id": 1 for name in ("bos", "eos", "cls", "sep")}
    extra = {**sizes, **ids} if model_type not in SIZES else {}
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=20, pad_token_id=0, **{**SIZES.get(model_type, {}), **extra}
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_exits(model, "text-classification")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_architectures_and_tasks_without_exits() -> None:
    config = transformers.AutoConfig.for_model(
        "albert",
        vocab_size=20,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    albert = transformers.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ConfigError, match="albert keeps no list of its layers"):
        check_exits(albert, "text-classification")
    bilstm = BiLSTMForSequenceClassification(BiLSTMConfig(vocab_size=20, num_hidden_layers=2))
    with pytest.raises(ConfigError, match="bilstm does more between its layers and its head"):
        check_exits(bilstm, "text-classification")
    with pytest.raises(ConfigError, match="question-answering: fill-mask has no small head"):
        check_exits(_model(), "fill-mask")
    score = get_task("text-classification", labels=("score",))
    with pytest.raises(ConfigError, match="a score has no certainty to stop by"):
        EarlyExit(_model(), {}, score, 0.1)


def test_a_model_that_does_more_before_its_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    encoder = type(model.bert.encoder)
    plain = encoder.forward

    def doubled(*args: Any, **options: Any) -> Any:
        output = plain(*args, **options)
        output.last_hidden_state = output.last_hidden_state * 2
        return output

    monkeypatch.setattr(encoder, "forward", doubled)
    with pytest.raises(ConfigError, match="bert does more between its layers and its head"):
        check_exits(model, "text-classification")


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoint:
    """A checkpoint with exits."""
    folder = tmp_path / "student"
    model = _model()
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    heads = _heads(model)
    config = ExitsConfig(exit_layers=EXITS, threshold=0.3)
    write_exits(folder, [heads[layer] for layer in EXITS], config)
    return open_checkpoint(folder)


def _table(tmp_path: Path) -> Table:
    task = get_task("text-classification", labels=("negative", "positive"))
    return task.read(write_rows(tmp_path / "rows.tsv", 30, seed=5))


def test_what_is_kept_is_what_was_trained(saved: Checkpoint) -> None:
    early, batch = load_early_exit(saved), _batch(TEXTS)
    assert (early.threshold, early.exit_layers) == (0.3, EXITS)
    assert load_early_exit(saved, threshold=0.7).threshold == 0.7
    trained = _early(_model(), 0.3)
    with torch.inference_mode():
        for (found, _), (expected, _) in zip(
            early.depths(**batch), trained.depths(**batch), strict=True
        ):
            assert torch.equal(found["logits"], expected["logits"])
        # The checkpoint itself stays what plain Transformers loads.
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(saved.path)
        assert torch.equal(plain(**batch).logits, early.depths(**batch)[-1][0]["logits"])


def _count(layers: list[int], _: Any, __: Any, found: Any) -> None:
    layers.append(int(found["layers"]))


def test_a_report_is_what_texts_that_leave_early_score(saved: Checkpoint, tmp_path: Path) -> None:
    table = _table(tmp_path)
    thresholds = (0.0, 0.5, 0.9, 2.0)
    report = measure_exits(saved, table, max_length=16, thresholds=thresholds)
    assert (report.metric, report.samples) == ("accuracy", 30)
    assert [row.threshold for row in report.thresholds] == [0.0, 0.3, 0.5, 0.9, 2.0]
    for row in report.thresholds:
        early = load_early_exit(saved, threshold=row.threshold)
        layers: list[int] = []
        early.register_forward_hook(partial(_count, layers))
        reference = Reference(saved, early)
        _, value = score(saved.task, reference.tokenizer, table, reference.infer, max_length=16)
        assert row.value == value
        assert row.mean_layers == pytest.approx(sum(layers) / 30)
        assert row.times_fewer == pytest.approx(4 / row.mean_layers)
        assert row.left_after == {n: pytest.approx(layers.count(n) / 30) for n in (1, 3, 4)}
    first, last = report.thresholds[0], report.thresholds[-1]
    assert (first.mean_layers, last.mean_layers) == (4, 1)
    assert [depth.layer for depth in report.depths] == [1, 3, 4]
    assert (report.depths[-1].value, report.depths[0].value) == (first.value, last.value)
    assert first.value == evaluate_checkpoint(saved, table, max_length=16)[1]


def test_a_cut_model_converts_and_is_verified(saved: Checkpoint, tmp_path: Path) -> None:
    from converters import ConvertConfig, convert

    cut_exit(saved, 3, tmp_path / "cut")
    opened = open_checkpoint(tmp_path / "cut")
    assert opened.config.num_hidden_layers == 3
    for weights in (saved.path / "exits", tmp_path / "cut"):
        modes = {file.stat().st_mode & 0o777 for file in weights.iterdir()}
        assert len(modes) == 1
    batch = _batch(TEXTS)
    with torch.inference_mode():
        expected = load_early_exit(saved).depths(**batch)[1][0]["logits"]
        assert torch.equal(load_model(opened)(**batch).logits, expected)
    values = {"format": ["onnx"], "precision": ["fp32"], "seq_length": [16]}
    paths = {"source": str(tmp_path / "cut"), "output": tmp_path / "bundle"}
    (artifact,) = convert(ConvertConfig.build({**paths, **values})).artifacts
    assert artifact.verification is not None and "onnxruntime" in artifact.runtimes
    assert (artifact.verification.max_relative_error or 0) < 1e-4
    # The folder may be written again, and no other.
    cut_exit(saved, 1, tmp_path / "cut")
    assert open_checkpoint(tmp_path / "cut").config.num_hidden_layers == 1
    with pytest.raises(UserError, match="exists and was not written by this command"):
        cut_exit(saved, 1, saved.path)


def test_exits_that_are_not_there(saved: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has exits after layers 1, 3: layer 2 is none of them"):
        cut_exit(saved, 2, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    weights = saved.path / "exits" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="does not hold these exits"):
        load_early_exit(saved)
    file = saved.path / "exits" / "config.json"
    file.write_text(json.dumps({"exit_layers": [1, 4], "threshold": 0.1}))
    with pytest.raises(CheckpointError, match="exits after layers 1, 4, and the model's last of 4"):
        load_early_exit(saved)
    file.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_early_exit(saved)
    file.unlink()
    with pytest.raises(CheckpointError, match="has no exits: train some with edge distill"):
        load_early_exit(saved)


APP = typer.Typer()
APP.command()(exits_command)


@pytest.fixture
def edge_exits(saved: Checkpoint) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        line = [str(saved.path), *map(str, arguments)]
        return CliRunner().invoke(APP, line, catch_exceptions=False).stdout

    return run


def test_the_command_measures(edge_exits: Callable[..., str], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.tsv", 8, seed=5)
    found = json.loads(edge_exits("--data", data, "--threshold", "0,2", "--json"))
    assert [row["mean_layers"] for row in found["thresholds"]][::2] == [4, 1]
    lines = edge_exits("--data", data, "--threshold", "0,2").splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        *("layers", "1", "3", "4"),
        *("threshold", "0", "0.3", "2"),
    ]


def test_the_command_cuts(edge_exits: Callable[..., str], tmp_path: Path) -> None:
    found = json.loads(edge_exits("--cut", 3, "--output", tmp_path / "cut", "--json"))
    assert found == {"output": str(tmp_path / "cut"), "layer": 3}
    assert open_checkpoint(tmp_path / "cut").config.num_hidden_layers == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs --data to measure, or --cut LAYER"),
        (("--cut", 1), "--cut LAYER and --output FOLDER go together"),
        (("--data", "x", "--output", "y"), "--cut LAYER and --output FOLDER go together"),
        (("--data", "x.tsv", "--threshold", "low"), "--threshold needs numbers from 0 on"),
        (("--data", "x.tsv", "--threshold", "-1"), "--threshold needs numbers from 0 on"),
    ],
)
def test_mistakes(edge_exits: Callable[..., str], arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edge_exits(*arguments)
