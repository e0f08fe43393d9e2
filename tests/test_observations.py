"""What is recorded of the inputs that activations see: all of them, where they lie."""

import numpy as np
import torch
from torch import Tensor, nn

from leaf.experiment.observations import BINS_PER_UNIT, input_histograms
from leaf.networks import Network


class Seen(Network):
    """One activation that sees the network's inputs as they are."""

    def __init__(self) -> None:
        super().__init__((1, 1, 1), "relu")
        self.activation1 = nn.ReLU()


def histogram(*batches: Tensor) -> tuple[np.ndarray, np.ndarray]:
    counts, edges = input_histograms(Seen(), batches)["activation1"]
    assert counts.dtype == torch.int64 and edges.dtype == torch.float32
    return counts.numpy(), edges.numpy()


def test_every_input_is_counted_where_it_is():
    """However far out it lies: the counts are NumPy's for the same edges, which end where the inputs do."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 5000, generator=generator) * torch.tensor([[0.5], [20], [3000]])
    counts, edges = histogram(*inputs)
    values = inputs.flatten().numpy()
    assert counts.sum() == values.size and (np.abs(values) > 16).mean() > 0.4
    assert edges[0] <= values.min() < edges[1] and edges[-2] < values.max() <= edges[-1]
    expected = np.histogram(values, edges)[0]
    assert np.abs(counts - expected).sum() <= 0.002 * values.size  # rounding at an edge


def test_bins_are_narrow_near_zero_and_a_share_of_the_input_far_from_it():
    _, edges = histogram(torch.tensor([-500.0, 0.0, 500.0]))
    widths, middles = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose(widths / (1 + np.abs(middles)), 1 / BINS_PER_UNIT, rtol=0.01)


def test_ends_of_the_range():
    for value in (0.0, -7.0, 1e30, torch.finfo(torch.float32).max):
        counts, edges = histogram(torch.full((4,), value))
        assert counts.tolist() == [4] and edges[0] <= value <= edges[1] and np.isfinite(edges).all()
    counts, edges = histogram(torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0]))
    assert counts.sum() == 4 and counts[0] == counts[-1] == 1 and edges[-1] > 3e38
