"""The training loop: epochs in, one record per epoch out."""

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
from leaf.experiment.graphs import Step, recorded
from leaf.experiment.guests import guests_of
from leaf.experiment.loading import Data
from leaf.experiment.observations import first_nonfinite_layer, gradient_norms, parameter_quantiles
from leaf.experiment.random_streams import EpochDraws, epoch_draws, epoch_order, initial_network
from leaf.experiment.records import EpochRecord
from leaf.experiment.scales import Settings
from leaf.experiment.stages import training_stages
from leaf.networks import Network
from leaf.procedures import training_step

TEST_BATCH_SIZE = 250

AUGMENTED_AT_ONCE = {"cpu": 1, "cuda": 64}
"""Number of minibatches that are augmented at once. On a GPU many take as few kernels as one."""

Progress = Callable[[int, int], None]
"""Called with the number of minibatches done in the epoch and their number in all."""


@dataclass
class PartialEpoch:
    """An epoch under way: its loader seed, the losses of its minibatches so far, and the seconds they took."""

    loader_seed: int
    losses: list[Tensor]
    seconds: float


class Training:
    """A cell in training: its network, optimizers, random streams, and the records so far.

    Whoever is told of progress may raise to stop: ``state_dict`` then tells where to go on, to the minibatch.

    Args:
        cell: what to train.
        settings: how long and with what minibatches.
        data: the images to train and test on, as many of them as the settings say.
        device: where to compute.
        kernel: ``"plain"``, or the name of the fast kernel that the device has; that one if not given.
        precision: a name in ``computing.PRECISIONS``.
        parent: of a cell that takes over another's network, that network's weights by name.
        dtype, memory_format: of weights and images; the tests' exact comparisons use float64 and contiguous memory.
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
            raise ValueError(f"{cell.name}: takes over the network of {cell.parent}")
        if parent is not None:
            take_over(self.network, parent)
        self.network.to(device, dtype)
        self.network.to(memory_format=memory_format)
        for layer in self.network.activations:
            if isinstance(layer, Adaptive):
                layer.plain = kernel == "plain"
        compute_in(precision, self.network, device)
        self.stages = training_stages(self.network, cell.procedure, cell.optimizer)
        self.may_record = not guests_of(cell)  # what a guest does besides, a record would leave out
        self.take_step = self._recorded_step()
        self.records: list[EpochRecord] = []
        self.partial: PartialEpoch | None = None
        self.nonfinite_layer: str | None = None
        self.quantiles = [parameter_quantiles(self.network)]
        self.initial_gradient_norms = self.gradient_norms()

    @property
    def finished(self) -> bool:
        """Whether there is no epoch left to train: all are done, or the last one's loss was not finite."""
        return len(self.records) >= len(self.epochs) or self.diverged

    @property
    def epochs_done(self) -> int:
        """How many epochs the network has behind it, those of a network that was taken over included."""
        return self.epochs.start + len(self.records)

    @property
    def diverged(self) -> bool:
        """Whether training ended early because a loss became NaN or infinite."""
        return bool(self.records) and self.records[-1].diverged

    def images(self, pixels: Tensor) -> Tensor:
        """Network input made of uint8 images, in the layout ``memory_format``.

        With one channel, ``contiguous()`` accepts the strides of either layout and torch then computes in the one that
        the strides suggest. A copy has those of contiguous memory. The default layout keeps what it is given: a copy
        there would change rounding, and so every result.
        """
        values = to_unit_interval(pixels, self.dtype)
        if self.memory_format is torch.contiguous_format:
            return values.clone(memory_format=torch.contiguous_format)
        return values.contiguous(memory_format=self.memory_format)

    def run_epoch(self, progress: Progress = lambda step, steps: None) -> EpochRecord:
        """Train one epoch, or the rest of the one under way, and test.

        Args:
            progress: called after every minibatch, training's and testing's, with the number of training minibatches
                done and their number in all.
        """
        losses = self.train_epoch(progress).double()
        partial = self.partial
        assert partial is not None
        data, held_out = self.data, self.settings.validation_images

        def test(images: Tensor, labels: Tensor) -> tuple[float, float]:
            return self.evaluate(images, labels, lambda: progress(len(losses), len(losses)))

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

    def train_epoch(self, progress: Progress = lambda step, steps: None) -> Tensor:
        """Train to the end of the epoch under way, or a new one, and give its minibatches' losses, on the CPU.

        The epoch stays under way until ``run_epoch`` has tested too.
        """
        partial = self.partial = self.partial or PartialEpoch(self.streams.next_loader_seed(), [], 0.0)
        started = time.perf_counter() - partial.seconds
        steps = math.ceil((len(self.data.train_images) - self.settings.validation_images) / self.settings.batch_size)
        self.network.train()
        for pixels, labels in self._minibatches(partial.loader_seed, len(partial.losses)):
            partial.losses.append(self.take_step(pixels, labels))
            partial.seconds = time.perf_counter() - started
            progress(len(partial.losses), steps)
        losses = torch.stack(partial.losses).cpu()
        partial.seconds = time.perf_counter() - started  # now a GPU has done what it was asked for
        if not losses.isfinite().all():
            images = self.images(self.data.train_images[: self.settings.batch_size])
            self._note_nonfinite(images)  # on a CPU it is known already, and more exactly
        return losses

    def _minibatches(self, loader_seed: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch's augmented images, uint8, and their labels, from minibatch ``start`` on."""
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
        """Train on an augmented minibatch; gives its loss."""
        images = self.images(pixels)
        note = functools.partial(self._note_nonfinite, images)
        return training_step(self.network, self.stages, images, labels, note)

    def _recorded_step(self) -> Step:
        """The training step, on a GPU recorded; anew whenever optimizers were given other memory."""
        if not self.may_record:
            return self._step
        optimizers = [stage.optimizer for stage in self.stages]

        def state() -> list[Tensor]:
            remembered = [values.values() for optimizer in optimizers for values in optimizer.state.values()]
            return [*self.network.state_dict().values(), *itertools.chain(*remembered)]

        return recorded(self._step, state, self.settings.batch_size, self.data.train_images.device)

    def _note_nonfinite(self, images: Tensor) -> None:
        """Note which layer first stopped giving finite values, if that isn't known."""
        self.nonfinite_layer = self.nonfinite_layer or first_nonfinite_layer(self.network, images) or "loss"

    @torch.no_grad()
    def evaluate(
        self, images: Tensor, labels: Tensor, progress: Callable[[], None] = lambda: None
    ) -> tuple[float, float]:
        """Mean cross-entropy and accuracy over images, uint8 ``(N, C, H, W)``; ``progress`` is told of each batch."""
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
        """``observations.gradient_norms`` on the first minibatch as stored, without augmentation or dropout."""
        size = self.settings.batch_size
        images, labels = self.data.train_images[:size], self.data.train_labels[:size]
        return gradient_norms(self.network, self.images(images), labels)

    def state_dict(self) -> dict[str, Any]:
        """All that training goes on from: tensors and plain values."""
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
        """Go on from where ``state_dict`` was called."""
        self.network.load_state_dict(state["network"])
        for stage, optimizer in zip(self.stages, state["optimizers"], strict=True):
            stage.optimizer.load_state_dict(optimizer)
        self.streams.load_state_dict(state["streams"])
        self.records = [EpochRecord(**record) for record in state["records"]]
        self.partial = None if state["partial"] is None else PartialEpoch(**state["partial"])
        if self.partial:
            device = self.data.train_images.device
            self.partial.losses = [loss.to(device) for loss in self.partial.losses]
        self.take_step = self._recorded_step()
        self.quantiles = state["quantiles"]
        self.nonfinite_layer = state["nonfinite_layer"]


def take_over(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Give a network the weights of one that differs in having no activation parameters.

    Raises:
        ValueError: if it differs in more.
    """
    own = {f"{name}.{key}" for name, layer in network.named_activations.items() for key in layer.state_dict()}
    if network.state_dict().keys() - own != weights.keys():
        raise ValueError("these are not the weights of the same network with its base function")
    network.load_state_dict(weights, strict=False)
