"""Every random number of the experiment, made from a cell's seed as the published implementation makes it.

One seed gives three streams, which don't disturb each other:

- the network's initial weights, drawn from torch's default generator;
- the loader seeds, one per epoch, from which the epoch's augmentation is drawn;
- dropout, drawn from the default generator of the network's device.

Nothing else in the project draws for a cell.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

LOADER_STREAMS = 4
"""The published loader has four worker processes; minibatch i is made by worker i mod 4, from a stream of its own."""

DROPOUT_OFFSET = 2**31
"""On a CPU dropout shares torch's default generator with nothing: it is seeded this far from the cell's seed."""

NetworkType = TypeVar("NetworkType", bound=nn.Module)


class EpochDraws(NamedTuple):
    """One epoch's augmentation.

    Attributes:
        flip: bool ``(N,)``, whether an image is mirrored left to right.
        shift_x, shift_y: int64 ``(N,)``, pixels by which it then moves to the right and down.
    """

    flip: Tensor
    shift_x: Tensor
    shift_y: Tensor


def initial_network(
    seed: int, build: Callable[[], NetworkType], minibatch_shape: tuple[int, int, int, int]
) -> tuple[NetworkType, "RandomStreams"]:
    """Build a network with the published initial weights, and the streams that its training goes on with.

    Uses torch's default CPU generator, since that is where ``torch.nn`` draws weights from.

    Args:
        seed: the cell's seed.
        build: makes the network, its layers in order.
        minibatch_shape: ``(N, C, H, W)`` of one minibatch.
    """
    torch.manual_seed(seed)
    torch.rand(4)  # the published code looks at one augmented image to learn its shape
    network = build()
    torch.rand(minibatch_shape)  # and sends a random minibatch through the network to learn the layers' shapes
    loader_seeds = torch.Generator()
    loader_seeds.set_state(torch.get_rng_state())
    torch.default_generator.manual_seed(seed + DROPOUT_OFFSET)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)  # as published: on a GPU dropout has the device's generator, with the same seed
    return network, RandomStreams(loader_seeds)


class RandomStreams:
    """The streams that training draws from: loader seeds here, dropout in the devices' default generators."""

    def __init__(self, loader_seeds: torch.Generator) -> None:
        self._loader_seeds = loader_seeds

    def next_loader_seed(self) -> int:
        """The coming epoch's loader seed."""
        seed, _test_loaders = (self._draw_int64() for _ in range(2))
        return seed

    def _draw_int64(self) -> int:
        return int(torch.empty((), dtype=torch.int64).random_(generator=self._loader_seeds))

    def state_dict(self) -> dict[str, Any]:
        """The streams' states, as tensors."""
        cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
        return {"loader_seeds": self._loader_seeds.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state_dict`` was called."""
        self._loader_seeds.set_state(state["loader_seeds"])
        torch.set_rng_state(state["cpu"])
        for cuda in state["cuda"]:
            torch.cuda.set_rng_state(cuda)


def epoch_draws(loader_seed: int, images: int, batch_size: int, height: int, width: int) -> EpochDraws:
    """The augmentation of one epoch over ``images`` images of ``height`` × ``width`` pixels, in their stored order.

    Every image takes four consecutive uniform draws: flip, angle (unused: no rotation), shift in x, shift in y.
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
    """An order to take the training images in, int64 ``(images,)``, for protocols that shuffle; the published doesn't.

    Its stream is the loader's next after those of ``epoch_draws``.
    """
    return torch.randperm(images, generator=torch.Generator().manual_seed(loader_seed + LOADER_STREAMS))


def _shift(draws: Tensor, size: int) -> Tensor:
    """Uniform draws from [0, 1) as whole pixels in ±10% of ``size``, rounded half to even, in float32 throughout."""
    low, high = (torch.tensor(sign * 0.1 * size, dtype=torch.float32) for sign in (-1, 1))
    return (draws * (high - low) + low).round().long()
