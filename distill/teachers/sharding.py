"""A teacher too large for one device, divided among the processes that train the student."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from distill.signals.capture import Inputs, LiveTeacher, Needs, Signals, capture
from distill.training import processes
from edge.errors import ConfigError


class ShardedTeacher(LiveTeacher):
    """A live teacher of which each device holds a part; all processes ask at the same time.

    The model itself stays whole in main memory: students and companions are made of it.
    """

    def __init__(self, model: Any, needs: Needs) -> None:
        super().__init__(model, needs)
        self._parts: Any = None

    def __call__(self, inputs: Inputs) -> Signals:
        if self._parts is None:
            # All processes are here together for the first time.
            self._parts = shard(copy.deepcopy(self.model))
        # The parts are where what divides them has put them, and never moved as a whole.
        with torch.no_grad():
            return capture(self._parts.eval(), inputs, self._needs)


def live_teacher(model: Any, needs: Needs) -> LiveTeacher:
    """A teacher that is asked in every step, divided where the launcher was told to."""
    return ShardedTeacher(model, needs) if processes.sharder() else LiveTeacher(model, needs)


def shard(model: Any) -> Any:
    """Divide a model's weights among all processes, layer by layer, in place."""
    {"fsdp": _with_fsdp, "deepspeed": _with_deepspeed}[processes.sharder() or ""](model)
    return model


def _with_fsdp(model: Any) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    device = "cpu" if not torch.cuda.is_available() else "cuda"
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    offload = OffloadPolicy()
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        offload = CPUOffloadPolicy(pin_memory=device == "cuda")
    mesh = init_device_mesh(device, (processes.count(),))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh, offload_policy=offload)
    fully_shard(model, mesh=mesh, offload_policy=offload)


def _with_deepspeed(model: Any) -> None:
    from accelerate.utils import DeepSpeedPlugin, is_deepspeed_available

    if not is_deepspeed_available():
        raise ConfigError("the launcher asks for DeepSpeed: pip install deepspeed, or use fsdp")
    import deepspeed

    plugin = DeepSpeedPlugin()
    config = {**plugin.deepspeed_config, "train_micro_batch_size_per_gpu": 1}
    for name in ("gradient_accumulation_steps", "gradient_clipping", "train_batch_size"):
        config.pop(name, None)
    # Without an optimiser it divides the weights and gathers each layer as it is needed.
    deepspeed.initialize(model=model, config=config)


def _layers(model: Any) -> list[nn.Module]:
    """The layers of an encoder: the modules of its longest list."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])
