"""Random streams and augmentation against the published minibatches, bit by bit, and torchvision's transforms."""

import hashlib

import pytest
import torch
from conftest import published
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional

from leaf import build_network
from leaf.experiment.augmentation import augment, to_unit_interval
from leaf.experiment.cells import Cell
from leaf.experiment.random_streams import EpochDraws, epoch_draws, initial_network
from leaf.experiment.scales import Settings
from leaf.experiment.training import Training


def minibatch(images: Tensor, loader_seed: int, index: int, size: int = 128) -> Tensor:
    draws = epoch_draws(loader_seed, len(images), size, *images.shape[2:])
    part = slice(index * size, (index + 1) * size)
    return augment(images[part], EpochDraws(*(draw[part] for draw in draws)))


def entry_id(entry):
    return f"{entry['network']}-{entry['dataset']}-{entry['seed']}"


def streams(entry):
    _, streams = initial_network(
        entry["seed"],
        lambda: build_network(entry["network"], entry["dataset"], "leaf-tanh"),
        (128, *{"fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[entry["dataset"]]),
    )
    return streams


@pytest.mark.parametrize("entry", published("seeds"), ids=entry_id)
def test_loader_seeds(entry):
    loader_seeds = streams(entry)
    seeds = [loader_seeds.next_loader_seed() for _ in range(100)]
    assert {epoch: seeds[int(epoch) - 1] for epoch in entry["loader_seed"]} == entry["loader_seed"]


@pytest.mark.parametrize("entry", published("batches"), ids=entry_id)
def test_published_minibatches(entry, data):
    images = data(entry["dataset"]).train_images
    loader_seeds = streams(entry)
    seeds = [loader_seeds.next_loader_seed() for _ in range(max(epoch["epoch"] for epoch in entry["epochs"]))]
    for epoch in entry["epochs"]:
        assert seeds[epoch["epoch"] - 1] == epoch["loader_seed"]
        for index, digest in epoch["minibatch_uint8_sha256"].items():
            found = minibatch(images, epoch["loader_seed"], int(index)).contiguous()
            assert hashlib.sha256(found.numpy().tobytes()).hexdigest() == digest, f"minibatch {index}"


class PublishedLoading(Dataset):
    """Images one by one through torchvision's transforms, as the published implementation loads them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.transform = transforms.Compose(
            [transforms.RandomHorizontalFlip(), transforms.RandomAffine(degrees=0, translate=(0.1, 0.1))]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return functional.pil_to_tensor(self.transform(functional.to_pil_image(self.images[index])))


@pytest.mark.parametrize("dataset", ["fashion_mnist", "cifar10"])
@pytest.mark.parametrize("seed", [42, 7823])
def test_same_images_as_torchvision_in_a_loader_with_four_workers(dataset, seed, data):
    images = data(dataset).train_images[: 128 * 9 + 96]  # ends with a partial minibatch
    loader = DataLoader(PublishedLoading(images), batch_size=128, num_workers=4)
    torch.manual_seed(seed)
    for _epoch in range(2):
        before = torch.get_rng_state()
        loader_seed = int(torch.empty((), dtype=torch.int64).random_())
        torch.set_rng_state(before)
        for index, expected in enumerate(loader):
            assert torch.equal(minibatch(images, loader_seed, index), expected)


def test_pixels_as_torchvision_scales_them(data):
    images = data("cifar10").test_images[:50]
    expected = torch.stack([functional.to_tensor(functional.to_pil_image(image)) for image in images])
    assert torch.equal(to_unit_interval(images), expected)
    assert torch.equal(to_unit_interval(images, torch.float64), expected.double())


def test_one_stream_does_not_shift_another():
    """Later images do not depend on draws from the default generator, by dropout or other code."""
    entry = {"network": "kerasnet", "dataset": "cifar10", "seed": 42}
    undisturbed, disturbed = streams(entry), streams(entry)
    expected = [undisturbed.next_loader_seed() for _ in range(3)]
    found = []
    for _ in range(3):
        torch.rand(1000)
        found.append(disturbed.next_loader_seed())
    assert found == expected


def test_dropout_is_seeded_apart_from_the_weights():
    streams({"network": "kerasnet", "dataset": "cifar10", "seed": 42})
    found = torch.rand(5)
    assert torch.equal(found, torch.rand(5, generator=torch.Generator().manual_seed(42 + 2**31)))


def test_streams_resume_from_a_state():
    entry = {"network": "lenet5", "dataset": "fashion_mnist", "seed": 42}
    first = streams(entry)
    first.next_loader_seed()
    torch.rand(7)
    state = first.state_dict()
    expected = (first.next_loader_seed(), torch.rand(3).tolist())
    second = streams(entry)
    second.load_state_dict(state)
    assert (second.next_loader_seed(), torch.rand(3).tolist()) == expected


def test_every_family_and_procedure_sees_the_same_images_and_test_images_stay_as_they_are(data, monkeypatch):
    seen = {}
    for activation, procedure in [("relu", "classic"), ("ahaf-silu", "dspt"), ("leaf-tanh", "dspt-p24sl")]:
        cell = Cell("kerasnet", "cifar10", activation, procedure, "adam", 42)
        training = Training(cell, Settings(epochs=2), data("cifar10", 300, 50))
        batches: list[Tensor] = []
        training.network.conv1.register_forward_pre_hook(
            lambda module, inputs, batches=batches: batches.append(inputs[0].clone())
        )
        for _ in range(2):
            training.run_epoch()
        distinct = [batch for i, batch in enumerate(batches) if i == 0 or not torch.equal(batch, batches[i - 1])]
        seen[activation] = distinct
        assert torch.equal(distinct[3], to_unit_interval(training.data.test_images))
    first, *others = seen.values()
    assert len(first) == 8  # two epochs of three minibatches, each followed by the test images
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
