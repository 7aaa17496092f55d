"""The one trainer of every recipe: transformers.Trainer on a Learner and a source of signals."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from distill.data.batches import IDLE, Collator, Samples, StepBatches, steps_of
from distill.data.views import view_inputs
from distill.objectives import Learner, Read
from distill.recipe.config import Stage
from distill.recipe.terms import TEACHER, Name
from distill.signals.capture import Source
from distill.training import processes, states
from distill.training.checkpoints import KeepBest, KeepState
from distill.training.evaluation import Judge, measure
from distill.training.progress import Progress
from edge.console import say
from edge.errors import TrainingError
from edge.storage import storage_errors

_LOGS_A_STAGE = 40
_FIRST_ROWS = 512
_WEIGHTS = "model.safetensors"


class DistillTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """Adds to Trainer the loss of a Learner, its terms in the log, and exact accumulation.

    source: gives the teacher's signals for a batch, or one for each of several teachers by name;
    None when only labels teach.
    judge: computes the task's metric after each epoch. callbacks: who else is told of each step.
    A batch is shared by all processes, and a step is the same however many there are.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        stage: Stage,
        samples: Samples,
        source: Source | Mapping[Name, Source] | None,
        folder: Path,
        judge: Judge | None = None,
        seed: int = 0,
        bf16: bool = False,
        save_seconds: float = 60.0,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self._sources = _by_name(source)
        self._judge = judge
        self._name = stage.name
        self._progress = Progress(stage.name)
        self._batch_size = stage.batch_size
        self._best = KeepBest(folder, stage.early_stopping) if stage.early_stopping else None
        # One row of term values for each batch since the last log, kept on the device.
        self._window: list[Tensor] = []
        self._window_start = 0
        super().__init__(
            model=learner,
            args=_arguments(
                stage, len(samples), folder, seed=seed, bf16=bf16, evaluates=judge is not None
            ),
            train_dataset=samples,
            # Trainer insists on one; `evaluate` asks the judge.
            eval_dataset=samples if judge is not None else None,
            data_collator=Collator(samples, processes.share_of(stage)),
            callbacks=[self._progress, KeepState(save_seconds), *callbacks],
        )
        self.remove_callback(PrinterCallback)  # it prints to stdout
        # `compute_loss` divides by the counts of the whole optimiser step.
        self.loss_is_scaled_for_ga = True

    def train(self, *args: Any, **kwargs: Any) -> Any:
        if self.model.watches and not kwargs.get("resume_from_checkpoint"):
            for remark in self.model.settle(map(self._read, self._first_batches())):
                say(f"{self._name}: {remark}")
        # Dropout falls elsewhere in each process; a run that is continued brings its own state.
        if processes.index():
            torch.manual_seed(self.args.seed + processes.index())
        state = kwargs.get("resume_from_checkpoint")
        if self._best is not None and state:
            self._best.resume(Path(state))
        try:
            done = super().train(*args, **kwargs)
        finally:
            self._progress.stop()
        if self._best is not None:
            self._best.load(self)
        return done

    def create_optimizer(self, model: Any = None) -> Any:
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and not self.model.pace.even:
            optimizer.param_groups[:] = self.model.pace.split(optimizer.param_groups)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        is_new = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if is_new and not self.model.pace.even:
            self.model.pace.set_rates(scheduler, num_training_steps)
        return scheduler

    def _batches(self, part: int, parts: int) -> StepBatches:
        return StepBatches.of(
            self.train_dataset,
            self._batch_size,
            accumulation=self.args.gradient_accumulation_steps,
            seed=self.args.seed,
            part=part,
            parts=parts,
        )

    def _first_batches(self) -> Iterator[dict[str, Tensor]]:
        """Enough rows to fit projections on, without chance; the same in all processes."""
        batches = self._batches(0, 1)
        # Texts may be at another epoch, where an earlier stage of this run trained on them.
        batches.set_epoch(0)
        for rows in itertools.islice(batches, -(-_FIRST_ROWS // self._batch_size)):
            batch = self.data_collator([self.train_dataset[row] for row in rows])
            yield {name: value.to(self.args.device) for name, value in batch.items()}

    def _read(self, inputs: dict[str, Tensor]) -> Read:
        labels = inputs.pop("labels")
        with self.accelerator.autocast():
            taught = {
                name: source(view_inputs(inputs, name) or inputs)
                for name, source in self._sources.items()
            }
        return inputs, labels, taught

    def get_train_dataloader(self) -> DataLoader[Any]:
        batches = self._batches(processes.index(), processes.count())
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # Each process has its rows already; accelerate would fill the last batch with others.
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of one optimiser step, and what is counted over all of them."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        learner = self.accelerator.unwrap_model(self.model)
        learner.advance(self.state.global_step, self.state.max_steps)
        counts = torch.stack([learner.tally(b) * b.get(IDLE, 1) for b in batches]).sum(0)
        counts = self.accelerator.reduce(counts, reduction="sum")
        # Gradients are averaged over processes: a share of each count makes that a sum.
        totals = learner.totals(counts)
        return batches, {name: total / processes.count() for name, total in totals.items()}

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        counted = inputs.pop(IDLE, None)
        values = model(*self._read(inputs), num_items_in_batch)
        if counted is not None:
            values = values * counted
        if not self._window:
            self._window_start = self.state.global_step
        self._window.append(values.detach())
        weights = self.accelerator.unwrap_model(model).weights
        return (values * weights).sum()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The metric, which the main process measures for all, in the training's precision."""
        assert self._judge is not None
        with self.accelerator.autocast():
            name, value = measure(self._judge, self.model.student)
        metrics = {f"eval_{name}": value}
        self.log(metrics)
        if self._best is not None:
            self._best.look(self)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {"loss": logs.pop("loss"), **self._drain(), **logs}
        super().log(logs, start_time)

    def _drain(self) -> dict[str, float]:
        """The mean of each term over the optimiser steps since the last log."""
        if not self._window:
            return {}
        values = self._checked_window()
        steps = max(1, self.state.global_step - self._window_start)
        means = (values.sum(0) / steps).tolist()
        self._window.clear()
        return dict(zip(self.model.names, means, strict=True))

    def _checked_window(self) -> Tensor:
        """Term values since the last log, (batches, terms); raises TrainingError at a NaN."""
        # Each process holds its share of sums over the whole step, times their number.
        values = self.accelerator.reduce(torch.stack(self._window), reduction="mean")
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            batch, term = bad[0].tolist()
            step = self._window_start + batch // self.args.gradient_accumulation_steps + 1
            name = self.model.names[term]
            self._fail(f"term '{name}' became {values[batch, term].item()} at step {step}")
        return values

    def _check_weights(self) -> None:
        """Weights that cannot be continued from must not replace some that can."""
        if self._window:
            self._checked_window()
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                self._fail(f"weight '{name}' is not finite at step {self.state.global_step}")

    def _fail(self, what: str) -> NoReturn:
        """Raise TrainingError, which says how to go on from what is kept."""
        kept = states.newest_whole(Path(self.args.output_dir))
        advice = (
            f"the weights of step {states.step_of(kept)} are kept, --resume with a lower "
            "--learning-rate or other weights continues from there"
            if kept
            else "lower --learning-rate or the weights and run again"
        )
        processes.raise_once(TrainingError(f"{what}: {advice}"))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """All of a state or nothing; the one before it stays to fall back to."""
        self._check_weights()
        folder = Path(self.args.output_dir)
        state = folder / f"checkpoint-{self.state.global_step}"
        try:
            with processes.shared_fate(), storage_errors(folder):
                super()._save_checkpoint(model, trial)
            # Once every process has written its part.
            with processes.shared_fate(), storage_errors(folder):
                if processes.is_main():
                    states.seal(state, self._best.record if self._best else None)
        except BaseException:
            shutil.rmtree(state, ignore_errors=True)
            raise

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not _internal_call:
            self._check_weights()
        super().save_model(output_dir, _internal_call)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        if not self.args.should_save:
            return
        # Knows tied weights, and leaves out the pickled arguments Trainer would add.
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_model(self.model, str(folder / _WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # Knows tied weights, of which `_save` wrote one.
        file = Path(resume_from_checkpoint) / _WEIGHTS
        safetensors.torch.load_model(model or self.model, str(file))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The state of both from the checkpoint, their settings from this run."""
        scheduler, groups = self.lr_scheduler, self.optimizer.param_groups
        rates = list(scheduler.base_lrs)
        settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        scheduler.base_lrs = rates
        shares = [share(scheduler.last_epoch) for share in scheduler.lr_lambdas]
        scheduler._last_lr = [rate * share for rate, share in zip(rates, shares, strict=True)]
        for group, ours, rate in zip(
            self.optimizer.param_groups, settings, scheduler._last_lr, strict=True
        ):
            group.update(ours, lr=rate)


def _by_name(source: Source | Mapping[Name, Source] | None) -> dict[Name, Source]:
    """Who answers for each teacher."""
    if source is None:
        return {}
    return dict(source) if isinstance(source, Mapping) else {TEACHER: source}


def _arguments(
    stage: Stage, rows: int, folder: Path, *, seed: int, bf16: bool, evaluates: bool
) -> Any:
    schedule = {"constant": "constant_with_warmup"}.get(stage.schedule, stage.schedule)
    if stage.cycles > 1:
        schedule = "cosine_with_restarts"
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=stage.epochs,
        max_steps=stage.max_steps or -1,
        per_device_train_batch_size=processes.share_of(stage),
        gradient_accumulation_steps=stage.gradient_accumulation,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs={"num_cycles": stage.cycles} if stage.cycles > 1 else None,
        warmup_steps=stage.warmup_ratio,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        adam_beta1=stage.adam_betas[0],
        adam_beta2=stage.adam_betas[1],
        adam_epsilon=stage.adam_epsilon,
        bf16=bf16,
        # Trainer refuses bfloat16 on a CPU unless it is asked for the CPU.
        use_cpu=bf16 and not torch.cuda.is_available(),
        seed=seed,
        eval_strategy="epoch" if evaluates else "no",
        save_strategy="no",
        logging_steps=max(1, steps_of(stage, rows) // _LOGS_A_STAGE),
        # It hides a NaN, and reads the loss back from the device at every step.
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    if arguments.n_gpu > 1:
        # One process a device (accelerate launch); DataParallel would split the terms.
        arguments._n_gpu = 1
    return arguments
