"""A recurrent network: a GRU that reads an image row by row, with LEAF in place of its functions.

Named in the configuration, plugins: [examples/gru.py], it is asked for as `gru`; see examples/recurrent.yaml.
"""

import torch
from torch import Tensor, nn

from leaf.activations import ACTIVATIONS
from leaf.networks import NETWORKS, ImageShape, Network

HIDDEN = 128


class Rows(nn.Module):
    """Images (N, C, H, W) as sequences of their rows (N, H, C * W)."""

    def forward(self, images: Tensor) -> Tensor:
        return images.transpose(1, 2).flatten(2)


class Recurrence(nn.Module):
    """The last state of a gated recurrent unit, (N, HIDDEN), after a sequence (N, steps, inputs).

    Gates and candidate have a function each, with parameters for each unit that all steps share. The activation takes
    the place of the gates' function if its form is a sigmoid, and else that of the candidate's.

    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, in the form of torch.nn.GRU.
    """

    def __init__(self, inputs: int, activation: str) -> None:
        super().__init__()
        self.from_input = nn.Linear(inputs, 3 * HIDDEN)
        self.from_state = nn.Linear(HIDDEN, 3 * HIDDEN)
        gates = ACTIVATIONS[activation].form == "sigmoid"
        gate, candidate = (activation, "tanh") if gates else ("sigmoid", activation)
        self.activation_reset = ACTIVATIONS[gate].build((HIDDEN,))
        self.activation_update = ACTIVATIONS[gate].build((HIDDEN,))
        self.activation_candidate = ACTIVATIONS[candidate].build((HIDDEN,))

    def forward(self, sequence: Tensor) -> Tensor:
        inputs = self.from_input(sequence).unbind(1)
        state = torch.zeros_like(inputs[0][:, :HIDDEN])
        for step in inputs:
            reset_in, update_in, candidate_in = step.chunk(3, 1)
            reset_state, update_state, candidate_state = self.from_state(state).chunk(3, 1)
            reset = self.activation_reset(reset_in + reset_state)
            update = self.activation_update(update_in + update_state)
            candidate = self.activation_candidate(candidate_in + reset * candidate_state)
            state = candidate + update * (state - candidate)
        return state


class GRU(Network):
    """A gated recurrent unit over an image's rows, and a linear layer on its last state."""

    title = "GRU"

    def __init__(self, image_shape: ImageShape, activation: str, classes: int = 10) -> None:
        super().__init__(image_shape, activation, classes)
        channels, _, width = image_shape
        self.rows = Rows()
        self.recurrence = Recurrence(channels * width, activation)
        self.linear = nn.Linear(HIDDEN, classes)


NETWORKS.register("gru", GRU)
