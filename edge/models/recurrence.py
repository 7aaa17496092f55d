"""Both directions of an LSTM over rows of different lengths, in training and in exported graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn


class BidirectionalLSTM(nn.Module):
    """One LSTM from the first token on, one from the last real token back.

    Rows are padded on the right. The second LSTM reads each row mirrored within its own length
    (see `mirror`), so neither meets padding before a real token and no answer depends on it.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.behind = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(self, x: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        """Hidden states of both, each in its own reading order.

        x, mirrored: (batch, sequence, input). Returns (batch, sequence, 2 * hidden).
        """
        pairs = ((self.ahead, x), (self.behind, mirrored))
        if not torch.compiler.is_exporting():
            states = [lstm(given)[0] for lstm, given in pairs]
        elif isinstance(x.shape[1], int):
            states = _unrolled([_gates(lstm) for lstm, _ in pairs], [x, mirrored])
        elif torch.onnx.is_in_onnx_export():
            states = [_onnx(_gates(lstm), given) for lstm, given in pairs]
        else:
            states = [_native(lstm, given) for lstm, given in pairs]
        return torch.cat(states, -1)


class Gates(NamedTuple):
    """An LSTM's weights with the gates in the order input, output, forget, value.

    ih: (1, 4 * hidden, input). hh: (1, 4 * hidden, hidden). bias: (1, 4 * hidden).
    """

    ih: torch.Tensor
    hh: torch.Tensor
    bias: torch.Tensor


def prepare_export(model: nn.Module) -> None:
    """Store the weights of the model's LSTMs as exported graphs want them, beside the trained.

    A graph that rearranged them itself would do so at every run, out of a quantiser's sight.
    The model must not be trained afterwards; what it saves does not change.
    """
    for module in model.modules():
        if isinstance(module, BidirectionalLSTM):
            for lstm in (module.ahead, module.behind):
                for name, value in _arranged(lstm)._asdict().items():
                    lstm.register_buffer(f"gates_{name}", value.detach(), persistent=False)


def mirror(attention_mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Matrices that reverse the real tokens of each row and put zeros on its padding.

    attention_mask: (batch, sequence), ones and then zeros. Returns (batch, sequence, sequence);
    matrix @ states is the mirrored states, exactly, and each matrix is its own inverse on real
    tokens. Its first row picks the last real token.
    """
    last = attention_mask.to(torch.int32).sum(-1, dtype=torch.int32) - 1
    position = torch.arange(attention_mask.shape[1], dtype=torch.int32, device=last.device)
    return (position[:, None] + position[None, :] == last[:, None, None]).to(dtype)


def _gates(lstm: nn.LSTM) -> Gates:
    if not hasattr(lstm, "gates_ih"):
        return _arranged(lstm)
    return Gates(*(getattr(lstm, f"gates_{name}") for name in Gates._fields))


def _arranged(lstm: nn.LSTM) -> Gates:
    """From PyTorch's order: input, forget, value, output."""
    size = lstm.hidden_size
    ih, hh, bias_ih, bias_hh = _weights(lstm)
    ih, hh, bias = (
        torch.cat([weight[start * size : (start + 1) * size] for start in (0, 3, 1, 2)])[None]
        for weight in (ih, hh, bias_ih + bias_hh)
    )
    return Gates(ih, hh, bias)


def _weights(lstm: nn.LSTM) -> list[torch.Tensor]:
    """(4 * hidden, input), (4 * hidden, hidden) and two biases, gates in PyTorch's order."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [lstm.get_parameter(name) for name in names]


def _unrolled(gates: Sequence[Gates], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """One step of all LSTMs at once after another: for formats without loops, of a fixed length.

    inputs and result, one a LSTM: (batch, sequence, input) and (batch, sequence, hidden).
    """
    batch, size = inputs[0].shape[0], gates[0].hh.shape[-1]
    # What does not depend on the step before is one product: (lstms, sequence * batch, 4 * size)
    given = torch.stack(
        [
            nn.functional.linear(x.transpose(0, 1).flatten(0, 1), g.ih[0], g.bias[0])
            for g, x in zip(gates, inputs, strict=True)
        ]
    )
    weight = torch.cat([g.hh for g in gates]).transpose(1, 2)
    hidden = given.new_zeros(len(gates), batch, size)
    cell, steps = hidden, []
    for part in given.split(batch, 1):
        total = part + torch.bmm(hidden, weight)
        let_in, let_out, keep = total[..., : 3 * size].sigmoid().chunk(3, -1)
        cell = keep * cell + let_in * total[..., 3 * size :].tanh()
        hidden = let_out * cell.tanh()
        steps.append(hidden)
    return list(torch.stack(steps, 2).unbind(0))


def _onnx(gates: Gates, x: torch.Tensor) -> torch.Tensor:
    """ONNX's LSTM, whose weights have this very form: (batch, sequence, hidden)."""
    size = gates.hh.shape[-1]
    # Room for a second bias, which PyTorch has and Gates has added to the first.
    bias = nn.functional.pad(gates.bias, (0, 4 * size))
    (states,) = torch.onnx.ops.symbolic_multi_out(
        "LSTM",
        (x.transpose(0, 1), gates.ih, gates.hh, bias),
        {"hidden_size": size},
        dtypes=(x.dtype,),
        shapes=((x.shape[1], 1, x.shape[0], size),),
    )
    return states[:, 0].transpose(0, 1)


def _native(lstm: nn.LSTM, x: torch.Tensor) -> torch.Tensor:
    """The LSTM as one operator of the graph, for any length: (batch, sequence, hidden)."""
    start = x.new_zeros(1, x.shape[0], lstm.hidden_size)
    return _flexible_lstm(x, [start, start], _weights(lstm), True, 1, 0.0, False, False, True)[0]


@torch.library.custom_op("edge::lstm", mutates_args=())
def _flexible_lstm(
    x: torch.Tensor,
    start: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`torch.lstm`, which torch.export takes apart into as many steps as its sample has tokens."""
    flags = (has_biases, num_layers, dropout, train, bidirectional, batch_first)
    return torch.lstm(x, list(start), list(weights), *flags)


@_flexible_lstm.register_fake
def _(
    x: torch.Tensor, start: Sequence[torch.Tensor], *_: object
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    states = x.new_empty(x.shape[0], x.shape[1], start[0].shape[-1])
    return states, torch.empty_like(start[0]), torch.empty_like(start[1])
