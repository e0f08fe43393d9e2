"""The experiment in straightforward PyTorch, as in the published implementation.

A DataLoader with four workers transforms images one by one with PIL and torchvision. Activations are autograd functions
that return full-size parameter gradients, which autograd then reduces. Memory is contiguous, algorithms are
deterministic, and all random numbers come from torch's default generator. The loop shares no code with the package: it
is the baseline of its speed and an independent check of its results.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

warnings.filterwarnings("ignore", "This DataLoader will create")  # four workers on two cores, as published

BATCH_SIZE, TEST_BATCH_SIZE, WORKERS = 128, 1000, 4


@dataclass
class PlainEpoch:
    """Result of one epoch: losses, accuracy in [0, 1], and the time when each minibatch ended, in seconds."""

    train_loss: float
    train_loss_variance: float
    test_accuracy: float
    minibatch_ends: list[float]


class Images(Dataset[tuple[Tensor, int]]):
    """Images as PIL pictures, transformed one at a time."""

    def __init__(self, images: Tensor, labels: Tensor, transform: transforms.Compose) -> None:
        self.pictures = [to_pil_image(image) for image in images]
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[index]), self.labels[index]


class LeafFunction(torch.autograd.Function):
    """(p1·u + p2)·σ(p3·u) + p4; each parameter's gradient has the size of the input."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, p1: Tensor, p2: Tensor, p3: Tensor, p4: Tensor) -> Tensor:
        s = torch.sigmoid(p3 * u)
        line = p1 * u + p2
        ctx.save_for_backward(u, p1, p3, s, line)
        return line * s + p4

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (grad,) = grads
        u, p1, p3, s, line = ctx.saved_tensors
        ds = line * s * (1 - s)
        return grad * (p1 * s + ds * p3), grad * u * s, grad * s, grad * ds * u, grad


class AhafFunction(torch.autograd.Function):
    """β·u·σ(γ·u); each parameter's gradient has the size of the input."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
        s = torch.sigmoid(gamma * u)
        ctx.save_for_backward(u, beta, gamma, s)
        return beta * u * s

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (grad,) = grads
        u, beta, gamma, s = ctx.saved_tensors
        ds = beta * u * s * (1 - s)
        return grad * (beta * s + ds * gamma), grad * u * s, grad * ds * u


class Learnable(nn.Module):
    """AHAF or LEAF for inputs of a shape, with a form as its initial function."""

    def __init__(self, family: str, form: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function = {"ahaf": AhafFunction, "leaf": LeafFunction}[family]
        start = {
            ("ahaf", "relu"): (1, 2**16),
            ("ahaf", "silu"): (1, 1),
            ("leaf", "relu"): (1, 0, 2**16, 0),
            ("leaf", "silu"): (1, 0, 1, 0),
            ("leaf", "tanh"): (0, 2, 2, -1),
            ("leaf", "sigmoid"): (0, 1, 1, 0),
        }[family, form]
        self.parameters_ = nn.ParameterList(torch.full(shape, float(value)) for value in start)

    def forward(self, u: Tensor) -> Tensor:
        return self.function.apply(u, *self.parameters_)


def activation(name: str, shape: tuple[int, ...]) -> nn.Module:
    """Make the activation with one of the package's names."""
    if "-" in name:
        return Learnable(*name.split("-"), shape)
    return {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[name]()


def lenet5(channels: int, size: int, name: str) -> nn.Sequential:
    """LeNet-5 for square images."""
    pooled = ((size - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5, bias=False), activation(name, (20, size - 4, size - 4)), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5, bias=False), activation(name, (50, 2 * pooled, 2 * pooled)), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(50 * pooled**2, 500), activation(name, (500,)), nn.Linear(500, 10, bias=False),
    )  # fmt: skip


def kerasnet(channels: int, size: int, name: str) -> nn.Sequential:
    """KerasNet for square images."""
    half = (size - 2) // 2
    quarter = (half - 2) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1), activation(name, (32, size, size)),
        nn.Conv2d(32, 32, 3), activation(name, (32, size - 2, size - 2)), nn.MaxPool2d(2), nn.Dropout2d(0.25),
        nn.Conv2d(32, 64, 3, padding=1), activation(name, (64, half, half)),
        nn.Conv2d(64, 64, 3), activation(name, (64, half - 2, half - 2)), nn.MaxPool2d(2), nn.Dropout2d(0.25),
        nn.Flatten(), nn.Linear(64 * quarter**2, 512), activation(name, (512,)), nn.Dropout(0.2), nn.Linear(512, 10),
    )  # fmt: skip


def optimizer(kind: str, parameters: list[nn.Parameter], slow: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam or RMSprop, with the slow parameters of P24Sl in a separate group."""
    rest = [parameter for parameter in parameters if not any(parameter is other for other in slow)]
    slow = [parameter for parameter in parameters if not any(parameter is other for other in rest)]
    rate, slow_rate = {"adam": (1e-3, 1e-6), "rmsprop": (1e-4, 1e-5)}[kind]
    groups: list[dict[str, Any]] = [{"params": rest}] + ([{"params": slow, "lr": slow_rate}] if slow else [])
    if kind == "adam":
        return torch.optim.Adam(groups, lr=rate)
    return torch.optim.RMSprop(groups, lr=rate, alpha=0.9, eps=1e-7)


def train(cell: Any, data: Any, epochs: int) -> Iterator[PlainEpoch]:
    """Train a cell, epoch by epoch.

    Args:
        cell: has the fields of ``leaf.experiment.cells.Cell``.
        data: has the tensors of ``leaf.experiment.datasets.Data``.
        epochs: how many.
    """
    torch.use_deterministic_algorithms(True)
    augment = [transforms.RandomHorizontalFlip(), transforms.RandomAffine(degrees=0, translate=(0.1, 0.1))]
    train_set = Images(data.train_images, data.train_labels, transforms.Compose([*augment, transforms.ToTensor()]))
    test_set = Images(data.test_images, data.test_labels, transforms.Compose([transforms.ToTensor()]))
    train_loader = DataLoader(train_set, BATCH_SIZE, num_workers=WORKERS)
    test_loader = DataLoader(test_set, TEST_BATCH_SIZE, num_workers=WORKERS)

    torch.manual_seed(cell.seed)
    image, _ = train_set[0]
    network = {"lenet5": lenet5, "kerasnet": kerasnet}[cell.network](*image.shape[:2], cell.activation)
    torch.rand(BATCH_SIZE, *image.shape)  # the published code's probe of the layers' shapes

    adaptive = [layer for layer in network if isinstance(layer, Learnable)]
    learnable = [parameter for layer in adaptive for parameter in layer.parameters()]
    weights = [p for layer in network if not isinstance(layer, Learnable) for p in layer.parameters()]
    slow = [layer.parameters_[i] for layer in adaptive for i in (1, 3)] if "p24sl" in cell.procedure else []
    stages = [learnable, weights] if "dspt" in cell.procedure else [list(network.parameters())]
    optimizers = [optimizer(cell.optimizer, stage, slow) for stage in stages]
    criterion = nn.CrossEntropyLoss()

    for _ in range(epochs):
        losses, ends = [], []
        network.train()
        for images, labels in train_loader:
            for stage, step in zip(stages, optimizers, strict=True):
                for parameter in network.parameters():
                    parameter.requires_grad_(any(parameter is other for other in stage))
                network.zero_grad()
                loss = criterion(network(images), labels)
                loss.backward()
                step.step()
            losses.append(loss.item())
            ends.append(time.perf_counter())
        network.eval()
        with torch.no_grad():
            correct = sum((network(images).argmax(1) == labels).sum().item() for images, labels in test_loader)
        all_losses = torch.tensor(losses, dtype=torch.float64)
        yield PlainEpoch(all_losses.mean().item(), all_losses.var().item(), correct / len(test_set), ends)
