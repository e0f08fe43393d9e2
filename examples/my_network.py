"""A custom network. With plugins: [examples/my_network.py] in the configuration, its name is `mlp`."""

from torch import nn

from leaf.activations import ACTIVATIONS
from leaf.networks import NETWORKS, ImageShape, Network


class MLP(Network):
    """Two hidden layers of 128 units. Layers run in the order of their creation; activations are found by name."""

    title = "MLP"

    def __init__(self, image_shape: ImageShape, activation: str, classes: int = 10) -> None:
        super().__init__(image_shape, activation, classes)
        act = ACTIVATIONS[activation].build
        channels, height, width = image_shape
        self.flatten = nn.Flatten()
        self.linear1 = nn.Linear(channels * height * width, 128)
        self.activation1 = act((128,))
        self.linear2 = nn.Linear(128, 128)
        self.activation2 = act((128,))
        self.linear3 = nn.Linear(128, classes)


NETWORKS.register("mlp", MLP)
