"""The training loop, with one record per epoch."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from leaf.activations import Adaptive
from leaf.experiment.augmentation import augment, to_unit_interval
from leaf.experiment.building import build_network
from leaf.experiment.cells import Cell
from leaf.experiment.computing import compute_in, keep_freed_memory, make_deterministic
from leaf.experiment.graphs import Step, captured
from leaf.experiment.loading import Data
from leaf.experiment.observations import first_nonfinite_layer, gradient_norms, parameter_quantiles
from leaf.experiment.plugins import plugins_of
from leaf.experiment.random_streams import EpochDraws, epoch_draws, epoch_order, initial_network
from leaf.experiment.records import EpochRecord
from leaf.experiment.scales import Settings
from leaf.experiment.stages import training_stages
from leaf.networks import Network
from leaf.procedures import training_step

TEST_BATCH_SIZE = 250

AUGMENTED_AT_ONCE = {"cpu": 1, "cuda": 64}
"""Number of minibatches that are augmented together, by device. A GPU needs as many kernels for them as for one."""

StepCallback = Callable[[int, int], None]
"""Called with the number of finished minibatches of the epoch and the number of all its minibatches."""


@dataclass
class PartialEpoch:
    """An unfinished epoch: its loader seed, the losses of its finished minibatches, and the seconds of training."""

    loader_seed: int
    losses: list[Tensor]
    seconds: float


class Training:
    """A cell in training: its network, optimizers, random streams and records.

    A callback may raise an error to stop the training. ``state_dict`` then holds the exact position in the epoch.

    Args:
        cell: the cell to train.
        settings: epochs, minibatches and protocol.
        data: training and test images, as many as in the settings.
        device: device of the computation. Default: the CPU.
        kernel: ``"reference"``, or the name of the device's compiled kernel, which is the default.
        precision: a name in ``computing.PRECISIONS``.
        parent: the parent's weights by name, for a cell with a parent.
        dtype, memory_format: those of weights and images. Exact comparisons use float64 and contiguous memory.

    Raises:
        ValueError: if ``parent`` is missing or superfluous, or does not fit the network.
    """

    def __init__(
        self,
        cell: Cell,
        settings: Settings,
        data: Data,
        device: torch.device | None = None,
        kernel: str | None = None,
        precision: str = "float32",
        parent: Mapping[str, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        make_deterministic()
        keep_freed_memory()
        device = device or torch.device("cpu")
        self.settings, self.dtype, self.memory_format = settings, dtype, memory_format
        self.epochs = cell.epochs(settings.epochs)
        self.data = data.to(device)
        self.network, self.streams = initial_network(
            cell.seed,
            lambda: build_network(cell.network, cell.dataset, cell.activation),
            (settings.batch_size, *data.train_images.shape[1:]),
        )
        if (cell.parent is None) != (parent is None):
            raise ValueError(f"{cell.name}: parent must be the weights of {cell.parent}")
        if parent is not None:
            take_over(self.network, parent)
        self.network.to(device, dtype)
        self.network.to(memory_format=memory_format)
        for layer in self.network.activations:
            if isinstance(layer, Adaptive):
                layer.reference = kernel == "reference"
        compute_in(precision, self.network, device)
        self.stages = training_stages(self.network, cell.procedure, cell.optimizer)
        self.may_capture = not plugins_of(cell)  # a captured step would omit a plugin's side effects
        self.take_step = self._captured_step()
        self.records: list[EpochRecord] = []
        self.partial: PartialEpoch | None = None
        self.nonfinite_layer: str | None = None
        self.quantiles = [parameter_quantiles(self.network)]
        self.initial_gradient_norms = self.gradient_norms()

    @property
    def finished(self) -> bool:
        """``True`` if all epochs are done or training diverged."""
        return len(self.records) >= len(self.epochs) or self.diverged

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs, including those of the parent."""
        return self.epochs.start + len(self.records)

    @property
    def minibatches(self) -> int:
        """Number of minibatches in an epoch."""
        return math.ceil((len(self.data.train_images) - self.settings.validation_images) / self.settings.batch_size)

    @property
    def diverged(self) -> bool:
        """``True`` if training ended early because a loss became NaN or infinite."""
        return bool(self.records) and self.records[-1].diverged

    def images(self, pixels: Tensor) -> Tensor:
        """Convert uint8 images to the network's input, in the layout ``memory_format``.

        Images with one channel have the strides of both layouts, so that ``contiguous()`` does not copy them, and torch
        infers the layout of its computation from the strides. Contiguous memory needs a copy for this reason. In the
        default layout a copy would change rounding and therefore all results.
        """
        values = to_unit_interval(pixels, self.dtype)
        if self.memory_format is torch.contiguous_format:
            return values.clone(memory_format=torch.contiguous_format)
        return values.contiguous(memory_format=self.memory_format)

    def run_epoch(self, progress: StepCallback = lambda step, steps: None) -> EpochRecord:
        """Train one epoch, or the rest of an unfinished one, and test.

        Args:
            progress: called after every minibatch of training and of testing.
        """
        losses = self.train_epoch(progress).double()
        partial = self.partial
        assert partial is not None
        data, held_out = self.data, self.settings.validation_images

        def test(images: Tensor, labels: Tensor) -> tuple[float, float]:
            return self.evaluate(images, labels, lambda: progress(self.minibatches, self.minibatches))

        test_loss, test_accuracy = test(data.test_images, data.test_labels)
        _, validation_accuracy = (
            test(data.train_images[-held_out:], data.train_labels[-held_out:]) if held_out else (None, None)
        )
        rates = sorted({group["lr"] for stage in self.stages for group in stage.optimizer.param_groups})
        record = EpochRecord(
            epoch=self.epochs_done + 1,
            train_loss=losses.mean().item(),
            train_loss_variance=losses.var().item() if len(losses) > 1 else math.nan,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            validation_accuracy=validation_accuracy,
            learning_rate=rates[-1],
            slow_learning_rate=rates[0] if len(rates) > 1 else None,
            train_seconds=partial.seconds,
        )
        self.partial = None
        self.records.append(record)
        self.quantiles.append(parameter_quantiles(self.network))
        return record

    def train_epoch(self, progress: StepCallback = lambda step, steps: None) -> Tensor:
        """Train a new epoch, or the rest of an unfinished one, and return the losses of its minibatches, on the CPU.

        The epoch remains unfinished until ``run_epoch`` has tested the network.
        """
        partial = self.partial = self.partial or PartialEpoch(self.streams.next_loader_seed(), [], 0.0)
        started = time.perf_counter() - partial.seconds
        self.network.train()
        for pixels, labels in self._minibatches(partial.loader_seed, len(partial.losses)):
            partial.losses.append(self.take_step(pixels, labels))
            partial.seconds = time.perf_counter() - started
            progress(len(partial.losses), self.minibatches)
        losses = torch.stack(partial.losses).cpu()
        partial.seconds = time.perf_counter() - started  # now the GPU has finished
        if not losses.isfinite().all():
            images = self.images(self.data.train_images[: self.settings.batch_size])
            self._note_nonfinite(images)  # on a CPU, the step itself has noted it
        return losses

    def _minibatches(self, loader_seed: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's augmented images, uint8, and their labels, from minibatch ``start`` on."""
        images, labels, size = self.data.train_images, self.data.train_labels, self.settings.batch_size
        count, (height, width) = len(images) - self.settings.validation_images, images.shape[2:]
        draws = epoch_draws(loader_seed, count, size, height, width)
        draws = EpochDraws(*(draw.to(images.device) for draw in draws))
        order = epoch_order(loader_seed, count).to(images.device) if self.settings.shuffle else None
        at_once = size * AUGMENTED_AT_ONCE[images.device.type]
        for first in range(start * size, count, at_once):
            place = slice(first, min(first + at_once, count))
            which = place if order is None else order[place]
            pixels = augment(images[which], EpochDraws(*(draw[place] for draw in draws)))
            yield from zip(pixels.split(size), labels[which].split(size), strict=True)

    def _step(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Train on an augmented minibatch and return its loss."""
        images = self.images(pixels)
        note = functools.partial(self._note_nonfinite, images)
        return training_step(self.network, self.stages, images, labels, note)

    def _captured_step(self) -> Step:
        """Return the training step, captured on a GPU. A new state of the optimizers requires a new capture."""
        if not self.may_capture:
            return self._step
        optimizers = [stage.optimizer for stage in self.stages]

        def state() -> list[Tensor]:
            remembered = [values.values() for optimizer in optimizers for values in optimizer.state.values()]
            return [*self.network.state_dict().values(), *itertools.chain(*remembered)]

        return captured(self._step, state, self.settings.batch_size, self.data.train_images.device)

    def _note_nonfinite(self, images: Tensor) -> None:
        """Note the first layer with non-finite outputs, unless one is noted already."""
        self.nonfinite_layer = self.nonfinite_layer or first_nonfinite_layer(self.network, images) or "loss"

    @torch.no_grad()
    def evaluate(
        self, images: Tensor, labels: Tensor, progress: Callable[[], None] = lambda: None
    ) -> tuple[float, float]:
        """Return mean cross-entropy and accuracy on uint8 images ``(N, C, H, W)``; ``progress`` counts minibatches."""
        self.network.eval()
        loss = torch.zeros((), dtype=torch.float64, device=labels.device)
        correct = torch.zeros_like(loss, dtype=torch.int64)
        for pixels, truth in zip(images.split(TEST_BATCH_SIZE), labels.split(TEST_BATCH_SIZE), strict=True):
            logits = self.network(self.images(pixels))
            loss += cross_entropy(logits, truth, reduction="sum")
            correct += (logits.argmax(1) == truth).sum()
            progress()
        return loss.item() / len(labels), correct.item() / len(labels)

    def gradient_norms(self) -> Tensor:
        """Return ``observations.gradient_norms`` on the first minibatch as stored, without augmentation or dropout."""
        size = self.settings.batch_size
        images, labels = self.data.train_images[:size], self.data.train_labels[:size]
        return gradient_norms(self.network, self.images(images), labels)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training needs to resume, as tensors and Python values."""
        return {
            "network": self.network.state_dict(),
            "optimizers": [stage.optimizer.state_dict() for stage in self.stages],
            "streams": self.streams.state_dict(),
            "records": [asdict(record) for record in self.records],
            "partial": None if self.partial is None else vars(self.partial),
            "quantiles": self.quantiles,
            "nonfinite_layer": self.nonfinite_layer,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from the result of ``state_dict``."""
        self.network.load_state_dict(state["network"])
        for stage, optimizer in zip(self.stages, state["optimizers"], strict=True):
            stage.optimizer.load_state_dict(optimizer)
        self.streams.load_state_dict(state["streams"])
        self.records = [EpochRecord(**record) for record in state["records"]]
        self.partial = None if state["partial"] is None else PartialEpoch(**state["partial"])
        if self.partial:
            device = self.data.train_images.device
            self.partial.losses = [loss.to(device) for loss in self.partial.losses]
        self.take_step = self._captured_step()
        self.quantiles = state["quantiles"]
        self.nonfinite_layer = state["nonfinite_layer"]


def take_over(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of the same network with a base function. Activation parameters keep their values.

    Raises:
        ValueError: if other weights are missing, or there are unknown ones.
    """
    own = {f"{name}.{key}" for name, layer in network.named_activations.items() for key in layer.state_dict()}
    if network.state_dict().keys() - own != weights.keys():
        raise ValueError("these are not the weights of the same network with its base function")
    network.load_state_dict(weights, strict=False)
