"""Recurrent layers written out in sums, products and sigmoids, so that the rules of `models/masks/rules.py` reach inside.

Arguments are those of torch's functions of the same names. Gates stand for how much of what is kept; where all numbers are
positive, "1 - gate" would be negative, so the gate itself stands in its place. Each step is divided by its largest number if that is
above one, as a constant: paths through many steps neither explode nor vanish.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

State = Sequence[Tensor]  # (h,) or (h, c)
Weights = Sequence[Tensor]
Cell = Callable[[Tensor, State, Weights], State]


def lstm_step(inputs: Tensor, state: State, weights: Weights) -> State:
    """(h, c) after one step of an LSTM; a projection of h is the odd weight at the end."""
    *weights, projection = weights if len(weights) % 2 else (*weights, None)
    enter, forget, value, leave = _sums(inputs, state[0], weights).chunk(4, -1)
    cell = forget.sigmoid() * state[1] + enter.sigmoid() * value.tanh()
    hidden = leave.sigmoid() * cell.tanh()
    return (hidden if projection is None else linear(hidden, projection)), cell


def gru_step(inputs: Tensor, state: State, weights: Weights) -> State:
    """(h,) after one step of a GRU."""
    count = len(weights) // 2
    from_inputs = linear(inputs, *weights[::2][:count]).chunk(3, -1)
    from_hidden = linear(state[0], *weights[1::2][:count]).chunk(3, -1)
    reset, update = ((one + other).sigmoid() for one, other in zip(from_inputs[:2], from_hidden[:2], strict=True))
    return (update * ((from_inputs[2] + reset * from_hidden[2]).tanh() + state[0]),)


def rnn_step(inputs: Tensor, state: State, weights: Weights) -> State:
    """(h,) after one step of a plain RNN."""
    return (_sums(inputs, state[0], weights).tanh(),)


STEPS: dict[str, Cell] = {"lstm": lstm_step, "gru": gru_step, "rnn_tanh": rnn_step, "rnn_relu": rnn_step}


def cell(name: str, inputs: Tensor, state: Any, *weights: Tensor | None) -> Any:
    """`torch.lstm_cell`, `gru_cell`, `rnn_tanh_cell`, `rnn_relu_cell`."""
    found = STEPS[name.removesuffix("_cell")](inputs, _state(state), [weight for weight in weights if weight is not None])
    return found if len(found) > 1 else found[0]


def layers(
    name: str,
    inputs: Tensor,
    state: Any,
    weights: Weights,
    bias: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> State:
    """`torch.lstm`, `gru`, `rnn_tanh`, `rnn_relu` of padded inputs: (outputs, last states)."""
    now, ends, start = inputs.transpose(0, 1) if batch_first else inputs, [], _state(state)
    directions = 2 if bidirectional else 1
    size = len(weights) // (num_layers * directions)
    for layer in range(num_layers):
        sides = []
        for direction in range(directions):
            place = layer * directions + direction
            steps = now.flip(0) if direction else now
            outputs, end = _run(STEPS[name], steps, tuple(part[place] for part in start), weights[place * size : (place + 1) * size])
            sides.append(outputs.flip(0) if direction else outputs)
            ends.append(end)
        now = torch.cat(sides, -1)
    last = [torch.stack(parts) for parts in zip(*ends, strict=True)]
    return (now.transpose(0, 1) if batch_first else now, *last)


def _run(step: Cell, steps: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    outputs = []
    for inputs in steps.unbind(0):
        state = step(inputs, state, weights)
        largest = max(float(part.detach().max()) for part in state)
        state = [part / largest for part in state] if largest > 1 else state
        outputs.append(state[0])
    return torch.stack(outputs), state


def _sums(inputs: Tensor, hidden: Tensor, weights: Weights) -> Tensor:
    return linear(inputs, *weights[::2]) + linear(hidden, *weights[1::2])


def _state(state: Any) -> State:
    return (state,) if isinstance(state, Tensor) else tuple(state)
