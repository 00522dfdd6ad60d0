"""An LSTM that reads an image row by row."""

import torch
from torch import Tensor, nn

FORGET = 1.0  # what is added to the forget gate before its sigmoid, so that a new network remembers


class RowLSTM(nn.Module):
    """One LSTM layer over the rows of an image and a classifier on its last output.

    `inputs` and `recurrent` hold the gates in the order input, forget, cell, output along their 4 * width rows.
    """

    def __init__(self, row: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(row, 4 * width)
        self.recurrent = nn.Linear(width, 4 * width, bias=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) to outputs (n, num_classes)."""
        rows = images.transpose(1, 2).flatten(2)  # (n, H, C * W)
        output = cell = images.new_zeros(images.shape[0], self.recurrent.in_features)
        for gates in self.inputs(rows).unbind(1):
            enter, forget, value, leave = (gates + self.recurrent(output)).chunk(4, dim=1)
            cell = torch.sigmoid(forget + FORGET) * cell + torch.sigmoid(enter) * torch.tanh(value)
            output = torch.sigmoid(leave) * torch.tanh(cell)
        return self.head(output)


def row_lstm(*, image_shape: tuple[int, int, int], num_classes: int, width: int = 128) -> nn.Module:
    """An LSTM of `width` units that gets one image row, all channels of it, per step (Hochreiter and Schmidhuber 1997, "Long
    short-term memory"; forget gates of Gers et al. 2000), and a classifier on what it says after the last row.

    Deviations: one bias per gate instead of the two of `nn.LSTM`; the forget gate is shifted by 1 (Jozefowicz et al. 2015, "An
    empirical exploration of recurrent network architectures") by a constant, because biases start at 0. The matrices are linear
    layers, so that masks and criteria reach them; each is used once per row. Sigmoids count as open gates where paths are told
    (`models/masks/gates.py`), and SynFlow sees through them. Parameters on 3x32x32 images and 10 classes: 116,490, of them 115,968 weights.
    """
    channels, _, columns = image_shape
    return RowLSTM(channels * columns, width, num_classes)
