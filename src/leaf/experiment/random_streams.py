"""All random numbers of a cell, derived from its seed as in the published implementation.

A seed determines three streams:

- the network's initial weights, drawn from torch's default generator;
- the loader seeds, one per epoch, from which the epoch's augmentation is drawn;
- dropout, drawn from the default generator of the network's device.

No other code draws random numbers for a cell.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

LOADER_STREAMS = 4
"""Number of workers of the published loader; worker i mod 4 makes minibatch i, and each worker has its own stream."""

DROPOUT_OFFSET = 2**31
"""Offset of the seed of dropout on a CPU from the cell's seed, so that dropout does not share the weights' stream."""

NetworkType = TypeVar("NetworkType", bound=nn.Module)


class EpochDraws(NamedTuple):
    """One epoch's augmentation.

    Attributes:
        flip: bool ``(N,)``; ``True`` flips an image horizontally.
        shift_x, shift_y: int64 ``(N,)``; translation to the right and down in pixels, after the flip.
    """

    flip: Tensor
    shift_x: Tensor
    shift_y: Tensor


def initial_network(
    seed: int, build: Callable[[], NetworkType], minibatch_shape: tuple[int, int, int, int]
) -> tuple[NetworkType, "RandomStreams"]:
    """Build a network with the published initial weights, and the random streams of its training.

    This seeds torch's default CPU generator, from which ``torch.nn`` draws weights.

    Args:
        seed: the cell's seed.
        build: returns the network; it creates the layers in order.
        minibatch_shape: ``(N, C, H, W)`` of one minibatch.
    """
    torch.manual_seed(seed)
    torch.rand(4)  # the published code first augments one image, to determine its shape
    network = build()
    torch.rand(minibatch_shape)  # then it runs the network on a random minibatch, to determine the layers' shapes
    loader_seeds = torch.Generator()
    loader_seeds.set_state(torch.get_rng_state())
    torch.default_generator.manual_seed(seed + DROPOUT_OFFSET)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)  # as published: on a GPU, dropout draws from the device's generator
    return network, RandomStreams(loader_seeds)


class RandomStreams:
    """Random streams of a training: the loader seeds, and torch's default generators, from which dropout draws."""

    def __init__(self, loader_seeds: torch.Generator) -> None:
        self._loader_seeds = loader_seeds

    def next_loader_seed(self) -> int:
        """Draw the loader seed of the next epoch. The published code draws one for its test loader, too."""
        seed, _test_loader = torch.empty(2, dtype=torch.int64).random_(generator=self._loader_seeds).tolist()
        return seed

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all streams, as tensors."""
        cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
        return {"loader_seeds": self._loader_seeds.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the states that ``state_dict`` returned."""
        self._loader_seeds.set_state(state["loader_seeds"])
        torch.set_rng_state(state["cpu"])
        for cuda in state["cuda"]:
            torch.cuda.set_rng_state(cuda)


def epoch_draws(loader_seed: int, images: int, batch_size: int, height: int, width: int) -> EpochDraws:
    """Draw one epoch's augmentation of ``images`` images of ``height`` × ``width`` pixels, in their stored order.

    Each image uses four consecutive uniform numbers: flip, angle (unused: no rotation), shift in x, shift in y.
    """
    stream = torch.arange(images) // batch_size % LOADER_STREAMS
    draws = torch.empty(images, 4)
    for index in range(LOADER_STREAMS):
        generator = torch.Generator().manual_seed(loader_seed + index)
        mine = stream == index
        draws[mine] = torch.rand(int(mine.sum()) * 4, generator=generator).view(-1, 4)
    flip, _angle, x, y = draws.unbind(1)
    return EpochDraws(flip < 0.5, _shift(x, width), _shift(y, height))


def epoch_order(loader_seed: int, images: int) -> Tensor:
    """Draw a permutation of the training images, int64 ``(images,)``. The published protocol does not shuffle.

    Its stream follows those of ``epoch_draws``.
    """
    return torch.randperm(images, generator=torch.Generator().manual_seed(loader_seed + LOADER_STREAMS))


def _shift(draws: Tensor, size: int) -> Tensor:
    """Map uniform float32 numbers in [0, 1) to int64 pixels in ±10% of ``size``, rounded half to even."""
    low, high = (torch.tensor(sign * 0.1 * size, dtype=torch.float32) for sign in (-1, 1))
    return (draws * (high - low) + low).round().long()
