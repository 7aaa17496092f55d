"""The one trainer of every recipe: transformers.Trainer on a Learner and a source of signals."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from distill.batches import BucketSampler, Samples
from distill.capture import Source
from distill.config import Stage
from distill.evaluation import Judge
from distill.objectives import Learner
from distill.progress import Progress
from edge.errors import TrainingError
from edge.storage import storage_errors

_LOGS_A_STAGE = 40
_WEIGHTS = "model.safetensors"


class DistillTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """Adds to Trainer the loss of a Learner, its terms in the log, and exact accumulation.

    source: gives the teacher's signals for a batch; None when only labels teach.
    judge: computes the task's metric after each epoch.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        stage: Stage,
        samples: Samples,
        source: Source | None,
        folder: Path,
        judge: Judge | None = None,
        seed: int = 0,
        bf16: bool = False,
        save_seconds: float = 60.0,
    ) -> None:
        self._source = source
        self._judge = judge
        self._progress = Progress(stage.name)
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
            data_collator=samples.collate,
            callbacks=[self._progress, _KeepState(save_seconds)],
        )
        self.remove_callback(PrinterCallback)  # it prints to stdout
        # `compute_loss` divides by the counts of the whole optimiser step.
        self.loss_is_scaled_for_ga = True

    def train(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().train(*args, **kwargs)
        finally:
            self._progress.stop()

    def get_train_dataloader(self) -> DataLoader[Any]:
        batch_size = self._train_batch_size
        order = BucketSampler(
            self.train_dataset.lengths,
            batch_size * self.args.gradient_accumulation_steps,
            seed=self.args.seed,
            on_epoch=self.train_dataset.set_epoch,
        )
        loader = DataLoader(
            self.train_dataset,
            batch_size=batch_size,
            sampler=order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of one optimiser step, and what is counted over all of them."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        learner = self.accelerator.unwrap_model(self.model)
        learner.advance(self.state.global_step, self.state.max_steps)
        counts = torch.stack([learner.tally(batch) for batch in batches]).sum(0)
        # Gradients are averaged over processes: a mean count makes that a sum over one total.
        counts = self.accelerator.reduce(counts, reduction="mean")
        return batches, learner.totals(counts)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        labels = inputs.pop("labels")
        taught = None
        if self._source is not None:
            with self.accelerator.autocast():
                taught = self._source(inputs)
        values = model(inputs, labels, taught, num_items_in_batch)
        if not self._window:
            self._window_start = self.state.global_step
        self._window.append(values.detach())
        weights = self.accelerator.unwrap_model(model).weights
        return (values * weights).sum()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        assert self._judge is not None
        name, value = self._judge(self.model.student)
        metrics = {f"eval_{name}": value}
        self.log(metrics)
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
        values = torch.stack(self._window)
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            batch, term = bad[0].tolist()
            step = self._window_start + batch // self.args.gradient_accumulation_steps + 1
            raise TrainingError(
                f"term '{self.model.names[term]}' became {values[batch, term].item()} at step "
                f"{step}: lower --learning-rate or the weights and run again"
            )
        return values

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with storage_errors(Path(self.args.output_dir)):
            super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # Knows tied weights, of which `_save` wrote one.
        file = Path(resume_from_checkpoint) / _WEIGHTS
        safetensors.torch.load_model(model or self.model, str(file))

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        # Weights that cannot be continued from must not replace some that can.
        if self._window:
            self._checked_window()
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingError(
                    f"weight '{name}' is not finite at step {self.state.global_step}: "
                    "lower --learning-rate or the weights and run again"
                )
        # Knows tied weights, and leaves out the pickled arguments Trainer would add.
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_model(self.model, str(folder / _WEIGHTS))


class _KeepState(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Asks for a training checkpoint when the last one is old."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if time.monotonic() - self._last >= self._seconds:
            control.should_save = True
            self._last = time.monotonic()


def _arguments(
    stage: Stage, rows: int, folder: Path, *, seed: int, bf16: bool, evaluates: bool
) -> Any:
    per_step = stage.batch_size * stage.gradient_accumulation
    steps = stage.max_steps or round(rows / per_step * stage.epochs)
    schedule = "constant_with_warmup" if stage.schedule == "constant" else stage.schedule
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=stage.epochs,
        max_steps=stage.max_steps or -1,
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.gradient_accumulation,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=schedule,
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
        save_total_limit=1,
        logging_steps=max(1, steps // _LOGS_A_STAGE),
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
