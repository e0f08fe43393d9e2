"""LeNet-5 and KerasNet with any activation, PyTorch's default initialization, and logits as output."""

from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn

from leaf.activations import ACTIVATIONS, Adaptive
from leaf.errors import UserError
from leaf.names import KERASNET, LENET5
from leaf.names import NETWORKS as NETWORKS
from leaf.names import ImageShape as ImageShape


class Network(nn.Sequential):
    """A sequence of layers, some of which are activations.

    Args:
        image_shape: shape ``(C, H, W)`` of one input image.
        activation: a name in ``leaf.activations.ACTIVATIONS``, for all activations of the network.
        classes: number of logits.

    Shape: input ``(N, C, H, W)``, output ``(N, classes)``.
    """

    title: ClassVar[str]
    seconds_per_1000_images: ClassVar[float] = 1.3
    """Approximate time to train on 1,000 images on one CPU core, in seconds. Requested job times depend on it.

    Measured with one cell on each of two cores: 0.38 for LeNet-5 on CIFAR-10, 1.35 for KerasNet. ResNet-18: 40, from a
    few steps on a busy machine.
    """

    megabytes_per_image: ClassVar[int] = 8
    """Upper limit of a training step's memory per image of the minibatch. Requested memory depends on it."""

    batch_norm: ClassVar[bool] = False
    """``True`` for a network with batch normalization, whose statistics DSPT updates twice per minibatch."""

    def __init__(self, image_shape: ImageShape, activation: str, classes: int = 10) -> None:
        super().__init__()

    def __getitem__(self, index: Any) -> Any:
        """Return one layer, or an ``nn.Sequential`` of the layers for a slice."""
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    @property
    def activations(self) -> list[nn.Module]:
        """The activation modules in the order of computation: those whose own name starts with ``activation``."""
        return list(self.named_activations.values())

    @property
    def named_activations(self) -> dict[str, nn.Module]:
        """The activation modules by qualified name."""
        own = ((name, name.rpartition(".")[2], module) for name, module in self.named_modules())
        return {name: module for name, last, module in own if last.startswith("activation")}

    @property
    def first_activation(self) -> int:
        """Index of the first layer that is or contains an activation."""
        first = next(iter(self.named_activations)).partition(".")[0]
        return [name for name, _ in self.named_children()].index(first)

    def forward(self, values: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Compute the layers ``[start, stop)``. A learnable activation includes the max-pooling that follows it."""
        layers = list(self)[start:stop]
        pooled = False
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if isinstance(layer, Adaptive) and layer.fused:
                pooled = _halves(following)
                values = layer(values, pooled)
            elif pooled:
                pooled = False
            else:
                values = layer(values)
        return values


def _halves(layer: nn.Module | None) -> bool:
    """Check whether a layer is the 2×2 max-pooling that a learnable activation can include."""
    if type(layer) is not nn.MaxPool2d:
        return False
    options = {"kernel_size": 2, "stride": 2, "padding": 0, "dilation": 1}
    usual = all(getattr(layer, name) in (value, (value, value)) for name, value in options.items())
    return usual and not layer.ceil_mode and not layer.return_indices


class LeNet5(Network):
    """LeNet-5 as in the experiment: without bias in the convolutions and in the last layer."""

    title = LENET5.title
    seconds_per_1000_images = LENET5.seconds_per_1000_images

    def __init__(self, image_shape: ImageShape = (1, 28, 28), activation: str = "relu", classes: int = 10) -> None:
        super().__init__(image_shape, activation, classes)
        act = ACTIVATIONS[activation].build
        channels, height, width = image_shape
        self.conv1 = nn.Conv2d(channels, 20, 5, bias=False)
        self.activation1 = act((20, height - 4, width - 4))
        self.pool1 = nn.MaxPool2d(2)
        height, width = (height - 4) // 2, (width - 4) // 2
        self.conv2 = nn.Conv2d(20, 50, 5, bias=False)
        self.activation2 = act((50, height - 4, width - 4))
        self.pool2 = nn.MaxPool2d(2)
        height, width = (height - 4) // 2, (width - 4) // 2
        self.flatten = nn.Flatten()
        self.linear1 = nn.Linear(50 * height * width, 500)
        self.activation3 = act((500,))
        self.linear2 = nn.Linear(500, classes, bias=False)


class KerasNet(Network):
    """The small convolutional network of Keras's CIFAR-10 example, with the experiment's dropout rates.

    A comment in the published code states 50% dropout before the last layer. The code, like this class, drops 20%.
    """

    title = KERASNET.title
    seconds_per_1000_images = KERASNET.seconds_per_1000_images

    def __init__(self, image_shape: ImageShape = (3, 32, 32), activation: str = "relu", classes: int = 10) -> None:
        super().__init__(image_shape, activation, classes)
        act = ACTIVATIONS[activation].build
        channels, height, width = image_shape
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.activation1 = act((32, height, width))
        self.conv2 = nn.Conv2d(32, 32, 3)
        self.activation2 = act((32, height - 2, width - 2))
        self.pool1 = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout2d(0.25)
        height, width = (height - 2) // 2, (width - 2) // 2
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.activation3 = act((64, height, width))
        self.conv4 = nn.Conv2d(64, 64, 3)
        self.activation4 = act((64, height - 2, width - 2))
        self.pool2 = nn.MaxPool2d(2)
        self.dropout2 = nn.Dropout2d(0.25)
        height, width = (height - 2) // 2, (width - 2) // 2
        self.flatten = nn.Flatten()
        self.linear1 = nn.Linear(64 * height * width, 512)
        self.activation5 = act((512,))
        self.dropout3 = nn.Dropout(0.2)
        self.linear2 = nn.Linear(512, classes)


def check(name: str, kind: Any) -> None:
    """Check a network before it is registered.

    Raises:
        UserError: if it is invalid.
    """
    if not (isinstance(kind, type) and issubclass(kind, Network)):
        raise UserError(f"network {name!r} is not a subclass of leaf.networks.Network")
    if not isinstance(getattr(kind, "title", None), str):
        raise UserError(f"network {name!r}: the class has no title, its name in tables")
