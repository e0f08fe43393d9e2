"""ResNet-18 for small images: a network with batch normalization and residual connections.

Source: He et al., "Deep Residual Learning for Image Recognition", 2016. The stem is that commonly used for 32×32
pixels: a 3×3 convolution with stride 1, and no pooling.
"""

from torch import Tensor, nn

from leaf.activations import ACTIVATIONS
from leaf.names import RESNET18, ImageShape
from leaf.networks import Network


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch normalization, added to the block's input.

    Args:
        shape: shape ``(C, H, W)`` of one sample's input.
        channels: channels of the output. If the shape of the output differs, a 1×1 convolution projects the input.
        stride: stride of the first convolution.
        activation: a name in ``leaf.activations.ACTIVATIONS``.
    """

    def __init__(self, shape: ImageShape, channels: int, stride: int, activation: str) -> None:
        super().__init__()
        before, height, width = shape
        self.shape: ImageShape = (channels, -(-height // stride), -(-width // stride))
        act = ACTIVATIONS[activation].build
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.activation1 = act(self.shape)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if self.shape != tuple(shape):
            self.shortcut.append(nn.Conv2d(before, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))
        self.activation2 = act(self.shape)

    def forward(self, values: Tensor) -> Tensor:
        """Compute the block's output, ``(N, C, H, W)``."""
        residual = self.bn2(self.conv2(self.activation1(self.bn1(self.conv1(values)))))
        return self.activation2(residual + self.shortcut(values))


class ResNet18(Network):
    """ResNet-18: a stem, eight residual blocks in four groups of 64 to 512 channels, and a linear layer."""

    title = RESNET18.title
    seconds_per_1000_images = RESNET18.seconds_per_1000_images
    megabytes_per_image = RESNET18.megabytes_per_image
    batch_norm = RESNET18.batch_norm

    def __init__(self, image_shape: ImageShape = (3, 32, 32), activation: str = "relu", classes: int = 10) -> None:
        super().__init__(image_shape, activation, classes)
        channels, height, width = image_shape
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        shape: ImageShape = (64, height, width)
        self.activation1 = ACTIVATIONS[activation].build(shape)
        for index in range(8):
            group, second = divmod(index, 2)
            block = ResidualBlock(shape, 64 * 2**group, 2 if group and not second else 1, activation)
            self.add_module(f"block{index + 1}", block)
            shape = block.shape
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(512, classes)
