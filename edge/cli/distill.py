"""`edge distill`: a teacher and a data file become a smaller checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    AllowPickle,
    AsJson,
    Bf16,
    LabelColumn,
    Output,
    PairColumn,
    TextColumn,
    TrustRemoteCode,
    columns,
    given,
    number,
    print_json,
)
from edge.console import show

if TYPE_CHECKING:
    from distill import DistillResult


# How `distill.baselines` says what the same student reaches on the same rows.
_BASELINES = {
    "without-teacher": "the student without a teacher",
    "random": "the student from random weights",
}


def distill(
    train: Annotated[str, typer.Option(help="Data file, or datasets name, to learn from.")],
    output: Output,
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="Checkpoint folder or hub id that teaches; repeat for several."),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            help="layers=3 | layers=1/2 | layers=0,2,4 | layers=3,hidden=128 | [...,]init=random "
            "| architecture=distilbert|bilstm|cnn|mobilebert,... | a checkpoint folder "
            "| a config.json. By default what the recipe says."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What to learn without a teacher, e.g. fill-mask.")
    ] = None,
    assistants: Annotated[
        list[str] | None,
        typer.Option(help="A model between teacher and student, as --student; repeat in order."),
    ] = None,
    eval: Annotated[
        str | None, typer.Option(help="Data file to measure teacher and student on.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A name that edge recipes lists, or a YAML file.")
    ] = None,
    unlabelled: Annotated[
        str | None, typer.Option(help="Data file of texts without labels, for recipes like xtreme.")
    ] = None,
    augment_folder: Annotated[
        Path | None, typer.Option(help="Where new texts are kept between runs. The user's cache.")
    ] = None,
    teacher_cache: Annotated[
        Path | None, typer.Option(help="Keep what the teacher says here and ask it only once.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    max_length: Annotated[int | None, typer.Option(help="Longest input, in tokens.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop each stage after so many.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the recipe's.")] = None,
    early_stopping: Annotated[
        int | None,
        typer.Option(help="End after so many epochs without a better metric; needs --eval."),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines", help="Also train the student without a teacher; needs --eval."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue although learning rate, epochs or weights differ."),
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard's logs, if it is installed.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same student.")] = None,
    bf16: Bf16 = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads to use.")] = None,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    json: AsJson = False,
) -> None:
    """Train a small student to answer as a large teacher does."""
    from distill import DistillConfig
    from distill import distill as run_distill
    from distill.training.processes import is_main

    values = {
        "teacher": teacher[0] if teacher and len(teacher) == 1 else teacher,
        "student": student,
        "assistants": assistants,
        "task": task,
        "train": train,
        "eval": eval,
        "recipe": recipe,
        "unlabelled": unlabelled,
        "augment_folder": augment_folder,
        "teacher_cache": teacher_cache,
        "output": output,
        "columns": columns(text_column, pair_column, label_column),
        "max_length": max_length,
        "epochs": epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "early_stopping": early_stopping,
        "baselines": baselines,
        "resume": resume,
        "tensorboard": tensorboard,
        "seed": seed,
        "bf16": bf16,
        "threads": threads,
        "allow_pickle": allow_pickle,
        "trust_remote_code": trust_remote_code,
    }
    result = run_distill(DistillConfig.build(given(values), where="edge distill"))
    if not is_main():
        return
    if json:
        print_json(result.to_dict())
    else:
        _print(result)


def _print(result: DistillResult) -> None:
    size = f"{result.parameters / 1e6:.1f}M parameters"
    if result.teacher_parameters is not None:
        size += f" (teacher {result.teacher_parameters / 1e6:.1f}M)"
    show(f"{result.output}: {size}, recipe {result.recipe}, {result.duration_s:.0f} s")
    if result.metric is not None:
        value = number(result.value)
        if result.teacher_value is not None:
            value += f" (teacher {number(result.teacher_value)})"
        show(f"{result.metric} {value} on {result.eval_samples} samples")
    for name, reached in (result.baselines or {}).items():
        show(f"  {_BASELINES[name]:<34} {number(reached)}")
