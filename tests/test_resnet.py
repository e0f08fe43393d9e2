"""ResNet-18: the network of torchvision, its batch normalization in checkpoints, and what is recorded of its layers."""

import pytest
import safetensors.torch
import torch
import torchvision
from project_copy import comparable_results
from torch import nn

from leaf import build_network
from leaf.experiment.cells import Cell
from leaf.experiment.errors import UserError
from leaf.experiment.job import train_cell
from leaf.experiment.scales import Settings

CELL = Cell("resnet18", "cifar10", "channel-leaf-silu", "p24sl", "adam", 42)
SETTINGS = Settings(epochs=2, batch_size=16, train_images=40, test_images=20)


def test_it_is_the_network_of_torchvision_with_the_stem_for_small_images():
    ours, theirs = build_network("resnet18", "cifar10", "relu"), torchvision.models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    names = dict(zip(theirs.state_dict(), ours.state_dict(), strict=True))
    theirs.load_state_dict({name: ours.state_dict()[own] for name, own in names.items()})
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for training in (True, True, False):  # with the statistics of two minibatches in the end
        torch.testing.assert_close(ours.train(training)(images), theirs.train(training)(images), rtol=0, atol=0)
    found = ours.state_dict()
    assert all(torch.equal(values, found[names[name]]) for name, values in theirs.state_dict().items())


def test_every_activation_is_of_the_kind_and_gets_inputs_of_its_shape():
    network = build_network("resnet18", "fashion_mnist", "leaf-tanh").eval()
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    names = [f"block{block}.activation{place}" for block in range(1, 9) for place in (1, 2)]
    assert list(network.named_activations) == ["activation1", *names]
    assert not [layer for layer in network.modules() if isinstance(layer, nn.ReLU)]
    channels = build_network("resnet18", "cifar10", "channel-leaf-silu")
    added = sum(p.numel() for p in channels.parameters()) - 11_173_962  # torchvision's, with this stem
    assert added == 4 * (64 * 5 + 4 * (128 + 256 + 512))


@pytest.mark.slow
@pytest.mark.data
def test_interrupted_training_gives_the_same_bits(empty_project):
    """Also the statistics of batch normalization, which the outputs include."""

    class Killed(Exception):
        pass

    def kill(epoch, step, steps):
        if (epoch, step) == (2, 2):
            raise Killed

    train_cell(CELL, "whole", SETTINGS, "cpu", threads=1)
    with pytest.raises(Killed):
        train_cell(CELL, "parts", SETTINGS, "cpu", threads=1, progress=kill)
    train_cell(CELL, "parts", SETTINGS, "cpu", threads=1)
    assert comparable_results(CELL.directory("parts")) == comparable_results(CELL.directory("whole"))
    weights = safetensors.torch.load_file(CELL.directory("parts") / "model.safetensors")
    assert weights["block8.bn2.num_batches_tracked"] == 2 * 3  # minibatches: none counted twice, no test image counted
    assert weights["bn1.running_mean"].abs().max() > 0
    forms = safetensors.torch.load_file(CELL.directory("parts") / "forms.safetensors")
    assert forms["inputs/block8.activation2"].sum() == 20 * 512 * 4 * 4 and len(forms["gradient_norms/end"]) == 21
    assert forms["quantiles/block1.activation1.p1"].shape == (3, 7)


@pytest.mark.parametrize("procedure", ["dspt", "dspt-p24sl"])
def test_two_stages_are_refused(procedure):
    twice = "the batch normalization of 'resnet18' would update its statistics twice; it applies to: lenet5"
    message = rf"cell .*/{procedure}/.*: .* {twice}"
    with pytest.raises(UserError, match=message):
        Cell("resnet18", "cifar10", "leaf-silu", procedure, "adam", 42)
