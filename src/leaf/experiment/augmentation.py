"""Augmentation of training images: a horizontal flip, then a translation by whole pixels with zero fill."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from leaf.experiment.random_streams import EpochDraws


def augment(images: Tensor, draws: EpochDraws) -> Tensor:
    """Flip and shift each image according to its draws.

    Args:
        images: uint8 ``(N, C, H, W)``.
        draws: for these N images, on their device.

    Returns:
        uint8 ``(N, C, H, W)``, channels last in memory.
    """
    count, _, height, width = images.shape
    margin_y, margin_x = round(0.1 * height), round(0.1 * width)
    padded = pad(images, (margin_x, margin_x, margin_y, margin_y))
    rows = torch.arange(height, device=images.device) - draws.shift_y[:, None]
    columns = torch.arange(width, device=images.device) - draws.shift_x[:, None]
    columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
    index = torch.arange(count, device=images.device)[:, None, None]
    # indices before and after the dimension of the channels move it to the end: (N, H, W, C)
    moved = padded[index, :, rows[:, :, None] + margin_y, columns[:, None, :] + margin_x]
    return moved.permute(0, 3, 1, 2)


def to_unit_interval(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Divide pixels by 255 in float32, as published, and convert the result to ``dtype``."""
    # On a GPU, torch divides by a Python number by multiplying with its reciprocal, which rounds differently.
    return images.to(torch.float32).div_(torch.full((), 255.0, device=images.device)).to(dtype)
