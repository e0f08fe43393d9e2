"""The training loop: the published implementation's losses, procedures, repeatability, and a golden record."""

import json
import math

import pytest
import torch
from conftest import FIXTURES, published, published_cell
from torch import nn
from torch.nn.functional import cross_entropy, max_pool2d

from leaf import build_network
from leaf.activations import Adaptive
from leaf.experiment import training as training_module
from leaf.experiment.augmentation import augment, to_unit_interval
from leaf.experiment.cells import Cell
from leaf.experiment.config import read_config
from leaf.experiment.loading import Data
from leaf.experiment.random_streams import EpochDraws, epoch_draws, initial_network
from leaf.experiment.records import TRAINING_VERSION
from leaf.experiment.scales import Settings
from leaf.experiment.stages import training_stages
from leaf.experiment.training import Training
from leaf.networks import Network
from leaf.procedures import training_step

EXACT = {"dtype": torch.float64, "memory_format": torch.contiguous_format}
"""Settings in which rounding is far below the compared differences."""


def cell_id(entry):
    return f"{published_cell(entry).name}"


def first_losses(entry, data: Data, steps: int, rounded: bool = False, **precision) -> tuple[list[float], Network]:
    """The losses of the first minibatches of a published cell, dropout rates 0, by the library's own loop.

    Args:
        rounded: whether to increase half of the initial weights, drawn at random, by one unit in the last place.
    """
    settings = Settings(epochs=1, train_images=128 * steps)
    images = Data(
        data.train_images[: 128 * steps], data.train_labels[: 128 * steps], data.test_images[:1], data.test_labels[:1]
    )
    training = Training(published_cell(entry), settings, images, **precision)
    for layer in training.network:
        if isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.p = 0.0
    if rounded:
        generator = torch.Generator().manual_seed(0)
        for name, weight in training.network.named_parameters():
            if not name.startswith("activation"):
                which = torch.rand(weight.shape, generator=generator) < 0.5
                weight.data = torch.where(which, weight.data.nextafter(torch.tensor(math.inf).to(weight)), weight.data)
    return training.train_epoch().tolist(), training.network


@pytest.mark.parametrize("entry", published("steps"), ids=cell_id)
def test_published_losses_in_float64(entry, data):
    """The first five to 1e-10, and all twenty where a slope of 2^16 does not amplify rounding.

    Measured over all twenty: 9e-16 at most, AHAF as ReLU 7e-11, LEAF as ReLU 2e-9 to 7e-4.
    """
    losses, network = first_losses(entry, data(entry["dataset"]), 20, **EXACT)
    torch.testing.assert_close(losses[:5], entry["losses_float64"][:5], rtol=0, atol=1e-10)
    tolerance = {("ahaf", "ReLU"): 1e-9, ("leaf", "ReLU"): 2e-3}.get((entry["family"], entry["form"]), 1e-10)
    torch.testing.assert_close(losses, entry["losses_float64"], rtol=0, atol=tolerance)
    if entry["form"] != "ReLU" or entry["family"] == "base":
        # what 20 float32 steps of the published implementation left behind
        for name, means in entry["activation_parameter_means_after"].items():
            ours = [getattr(layer, name).mean().item() for layer in network.activations]
            torch.testing.assert_close(ours, means, rtol=0, atol=1e-4)
        weights = [p for name, p in network.named_parameters() if not name.startswith("activation")]
        norm = torch.cat([weight.flatten() for weight in weights]).norm().item()
        assert norm == pytest.approx(entry["weights_norm_after"], abs=1e-3)


def test_rounding_changes_the_losses_of_leaf_as_relu(data):
    """A change of the weights in the last place is amplified to the size of the differences from the published losses.

    The 20 losses of LEAF as ReLU can therefore be equal only if every operation rounds in the same way.
    """
    entry = next(e for e in published("steps") if (e["family"], e["form"], e["network"]) == ("leaf", "ReLU", "lenet5"))
    losses, rounded = (first_losses(entry, data(entry["dataset"]), 20, change, **EXACT)[0] for change in (False, True))
    differences = [abs(a - b) for a, b in zip(losses, rounded, strict=True)]
    assert differences[0] < 1e-13 and 1e-5 < max(differences) < 2e-3


@pytest.mark.parametrize("entry", published("steps"), ids=cell_id)
def test_published_losses_as_trained(entry, data):
    """In float32 and channels-last: ten times the distance of the published float32 from its float64, at least 1e-4."""
    published_error = max(abs(a - b) for a, b in zip(entry["losses"], entry["losses_float64"], strict=True))
    losses, _ = first_losses(entry, data(entry["dataset"]), 20)
    torch.testing.assert_close(losses, entry["losses_float64"], rtol=0, atol=max(10 * published_error, 1e-4))


@pytest.mark.parametrize("dataset", ["fashion_mnist", "cifar10"])
def test_contiguous_training_computes_in_contiguous_memory(dataset, data):
    """Also with one channel, where the strides of augmented images pass for both layouts."""
    training = Training(Cell("lenet5", dataset, "relu", "classic", "adam", 42), Settings(), data(dataset, 256), **EXACT)
    pixels = data(dataset, 8).train_images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    images = training.images(pixels)
    _, channels, height, width = images.shape
    assert images.stride() == (channels * height * width, height * width, width, 1)
    assert training.network.conv1(images).is_contiguous()
    assert torch.equal(images, to_unit_interval(pixels, torch.float64))


GOLDEN = Cell("kerasnet", "cifar10", "leaf-silu", "dspt-p24sl", "adam", 42)


def golden_record(data) -> dict:
    """A short real cell with dropout, in float64, which may change only with the training version."""
    training = Training(GOLDEN, Settings(epochs=2), data("cifar10", 300, 100), **EXACT)
    records = [training.run_epoch() for _ in range(2)]
    return {
        "training_version": TRAINING_VERSION,
        "losses": [[record.train_loss, record.train_loss_variance, record.test_loss] for record in records],
    }


def test_results_change_only_with_the_training_version(data):
    """After an intended change: increment TRAINING_VERSION, note the reason there, run tests/record_golden.py."""
    recorded = json.loads((FIXTURES / "golden.json").read_text())
    found = golden_record(data)
    assert found["training_version"] == recorded["training_version"]
    for ours, theirs in zip(found["losses"], recorded["losses"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


# --- procedures -------------------------------------------------------------------------------------------------------


def setup_step(activation, procedure, optimizer="adam"):
    torch.manual_seed(0)
    network = build_network("lenet5", "fashion_mnist", activation)
    images, labels = torch.rand(16, 1, 28, 28), torch.randint(10, (16,))
    return network, training_stages(network, procedure, optimizer), images, labels


def snapshot(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("activation", "procedure"), [("ahaf-silu", "dspt"), ("leaf-tanh", "dspt-p24sl")])
def test_two_stages(activation, procedure):
    network, stages, images, labels = setup_step(activation, procedure)
    assert len(stages) == 2
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(snapshot(network)))
    before = snapshot(network)
    activation_names = {name for name in before if name.startswith("activation")}
    logged = training_step(network, stages, images, labels)
    _, first_forward, second_forward = seen  # before them, once for both, what lies before the first activation
    assert not moved(before, first_forward)
    assert moved(before, second_forward) == activation_names  # stage 1 moved these, before the second forward pass
    assert moved(second_forward, snapshot(network)) == set(before) - activation_names
    reference = build_network("lenet5", "fashion_mnist", activation)
    reference.load_state_dict(second_forward)
    assert logged.item() == pytest.approx(cross_entropy(reference(images), labels).item(), abs=1e-6)


def test_no_gradients_for_frozen_parameters():
    network, stages, images, labels = setup_step("leaf-silu", "dspt-p24sl")
    training_step(network, stages, images, labels)
    with_gradient = [sum(p.grad is not None for p in stage.learning) for stage in stages]
    assert with_gradient == [12, 5]
    for stage in stages:
        stage.optimizer.zero_grad()
    training_step(network, stages[:1], images, labels)
    assert all(p.grad is None for p in stages[1].learning)


@pytest.mark.parametrize("cell", read_config().cells(scale="paper"), ids=lambda cell: cell.name)
def test_every_parameter_belongs_to_one_optimizer_with_its_learning_rate(cell):
    network = build_network(cell.network, cell.dataset, cell.activation)
    stages = training_stages(network, cell.procedure, cell.optimizer)
    rates = {
        id(parameter): group["lr"]
        for stage in stages
        for group in stage.optimizer.param_groups
        for parameter in group["params"]
    }
    parameters = dict(network.named_parameters())
    assert sum(len(group["params"]) for s in stages for group in s.optimizer.param_groups) == len(parameters)
    assert len(stages) == (2 if "dspt" in cell.procedure else 1)
    rate, slow_rate = {"adam": (1e-3, 1e-6), "rmsprop": (1e-4, 1e-5)}[cell.optimizer]
    for name, parameter in parameters.items():
        slow = "p24sl" in cell.procedure and name.split(".")[1] in ("p2", "p4")
        assert rates[id(parameter)] == (slow_rate if slow else rate), name


def test_optimizer_settings():
    adam = training_stages(build_network("lenet5", "cifar10", "relu"), "classic", "adam")[0].optimizer
    rmsprop = training_stages(build_network("lenet5", "cifar10", "relu"), "classic", "rmsprop")[0].optimizer
    assert isinstance(adam, torch.optim.Adam) and isinstance(rmsprop, torch.optim.RMSprop)
    expected_adam = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    expected_rmsprop = {
        "lr": 1e-4, "alpha": 0.9, "eps": 1e-7, "momentum": 0, "centered": False, "weight_decay": 0,
    }  # fmt: skip
    assert {key: adam.defaults[key] for key in expected_adam} == expected_adam
    assert {key: rmsprop.defaults[key] for key in expected_rmsprop} == expected_rmsprop


def test_procedures_that_do_not_apply_to_a_network_are_refused():
    with pytest.raises(ValueError, match="this network has none"):
        training_stages(build_network("lenet5", "cifar10", "relu"), "dspt", "adam")
    with pytest.raises(ValueError, match="only LEAF has"):
        training_stages(build_network("lenet5", "cifar10", "ahaf-relu"), "p24sl", "adam")


def plain_losses(cell: Cell, data: Data, steps: int) -> list[float]:
    """The first losses of a cell in float64, computed without the library's activations, stages or optimizers."""
    network, streams = initial_network(
        cell.seed,
        lambda: build_network(cell.network, cell.dataset, cell.activation),
        (128, *data.train_images.shape[1:]),
    )
    network.double()
    adaptive = [layer for layer in network.activations if isinstance(layer, Adaptive)]
    for layer in adaptive:

        def formula(u, pooled, layer=layer):
            p = [parameter[None] for parameter in layer.parameters()]
            if len(p) == 2:
                y = p[0] * u * torch.sigmoid(p[1] * u)
            else:
                y = (p[0] * u + p[1]) * torch.sigmoid(p[2] * u) + p[3]
            return max_pool2d(y, 2) if pooled else y

        layer.forward = formula
    rate, slow_rate = {"adam": (1e-3, 1e-6), "rmsprop": (1e-4, 1e-5)}[cell.optimizer]
    slow = [p for layer in adaptive for name, p in layer.named_parameters() if name in ("p2", "p4")]
    if "p24sl" not in cell.procedure:
        slow = []
    moments = {p: [torch.zeros_like(p), torch.zeros_like(p), 0] for p in network.parameters()}

    def update(parameters, loss):
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            lr = slow_rate if any(p is s for s in slow) else rate
            m = moments[p]
            m[2] += 1
            if cell.optimizer == "adam":
                m[0], m[1] = 0.9 * m[0] + 0.1 * g, 0.999 * m[1] + 0.001 * g * g
                step = m[0] / (1 - 0.9 ** m[2]) / ((m[1] / (1 - 0.999 ** m[2])).sqrt() + 1e-8)
            else:
                m[1] = 0.9 * m[1] + 0.1 * g * g
                step = g / (m[1].sqrt() + 1e-7)
            p.data -= lr * step

    draws = epoch_draws(streams.next_loader_seed(), len(data.train_images), 128, *data.train_images.shape[2:])
    activation = [p for layer in adaptive for p in layer.parameters()]
    others = [p for p in network.parameters() if not any(p is a for a in activation)]
    losses = []
    for step in range(steps):
        part = slice(128 * step, 128 * step + 128)
        pixels = augment(data.train_images[part], EpochDraws(*(draw[part] for draw in draws)))
        images = to_unit_interval(pixels, torch.float64).clone(memory_format=torch.contiguous_format)
        labels = data.train_labels[part]
        if "dspt" in cell.procedure:
            update(activation, cross_entropy(network(images), labels))
            loss = cross_entropy(network(images), labels)
            update(others, loss)
        else:
            loss = cross_entropy(network(images), labels)
            update(list(network.parameters()), loss)
        losses.append(loss.item())
    return losses


PUBLISHED_KINDS = {
    (cell.network, cell.activation, cell.procedure, cell.optimizer) for cell in map(published_cell, published("steps"))
}
OTHER_KINDS = {
    (cell.network, cell.activation, cell.procedure, cell.optimizer): cell
    for cell in read_config().cells(scale="paper")
    if (cell.network, cell.activation, cell.procedure, cell.optimizer) not in PUBLISHED_KINDS
}


@pytest.mark.parametrize("cell", OTHER_KINDS.values(), ids=lambda cell: cell.name)
def test_kinds_that_were_not_published_against_a_plain_computation(cell, data):
    """Every other combination of network, activation, procedure and optimizer in the grid, in three float64 steps.

    Dropout is left on: both sides draw it from the default generator.
    """
    images = data(cell.dataset, 3 * 128, 10)
    training = Training(cell, Settings(epochs=1), images, **EXACT)
    found = training.train_epoch().tolist()
    torch.testing.assert_close(found, plain_losses(cell, images, 3), rtol=0, atol=1e-9)


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_images_are_used_in_order_including_the_last_short_batch(data):
    training = Training(
        Cell("lenet5", "fashion_mnist", "relu", "classic", "adam", 42),
        Settings(epochs=1),
        data("fashion_mnist", 300, 50),
    )
    seen = []
    training.images = lambda pixels, original=training.images: seen.append(pixels) or original(pixels)
    training.run_epoch()
    assert [len(pixels) for pixels in seen] == [128, 128, 44, 50]
    assert torch.equal(seen[-1], training.data.test_images)


def test_images_are_held_out_and_shuffled_on_demand(data):
    cell = Cell("lenet5", "fashion_mnist", "relu", "classic", "adam", 42)
    settings = Settings(epochs=2, validation_images=100, shuffle=True)
    images = data("fashion_mnist", 400, 50)
    training = Training(cell, settings, images)
    walked = []
    training.images = lambda pixels, original=training.images: walked.append(pixels) or original(pixels)
    drawn = training_module.epoch_draws
    with pytest.MonkeyPatch.context() as still:  # no augmentation, so that images can be distinguished
        nothing = torch.zeros(300, dtype=torch.int64)
        still.setattr(training_module, "epoch_draws", lambda *_: EpochDraws(nothing.bool(), nothing, nothing))
        records = [training.run_epoch() for _ in range(2)]
    assert drawn is training_module.epoch_draws
    per_epoch = len(walked) // 2
    epochs = [torch.cat(walked[first : first + 3]) for first in (0, per_epoch)]
    stored = {image.numpy().tobytes(): place for place, image in enumerate(images.train_images)}
    orders = [[stored[image.contiguous().numpy().tobytes()] for image in epoch] for epoch in epochs]
    assert all(
        sorted(order) == sorted(stored[i.numpy().tobytes()] for i in images.train_images[:300]) for order in orders
    )
    assert orders[0] != orders[1] != sorted(orders[1])
    assert torch.equal(torch.cat(walked[per_epoch - 1 : per_epoch]), images.train_images[300:])
    logits = training.network.eval()(to_unit_interval(images.train_images[300:]))
    accuracy = (logits.argmax(1) == images.train_labels[300:]).double().mean().item()
    assert records[1].validation_accuracy == pytest.approx(accuracy)


def test_labels_go_with_shuffled_images(data):
    """Training learns with and without shuffling; labels in the wrong order would give an accuracy of 1/10."""
    cell = Cell("lenet5", "fashion_mnist", "relu", "classic", "adam", 42)
    training = Training(cell, Settings(epochs=3, shuffle=True), data("fashion_mnist", 1280, 500))
    assert [training.run_epoch() for _ in range(3)][-1].test_accuracy > 0.5


def test_record_of_an_epoch(data):
    cell = Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "rmsprop", 42)
    twin = Training(cell, Settings(epochs=1), data("fashion_mnist", 300, 200))
    losses = twin.train_epoch().double()
    training = Training(cell, Settings(epochs=1), data("fashion_mnist", 300, 200))
    record = training.run_epoch()
    assert record.epoch == 1 and training.finished
    assert record.train_loss == pytest.approx(losses.numpy().mean(), rel=1e-12)
    assert record.train_loss_variance == pytest.approx(losses.numpy().var(ddof=1), rel=1e-12)
    assert (record.learning_rate, record.slow_learning_rate) == (1e-4, 1e-5)
    logits = training.network.eval()(to_unit_interval(training.data.test_images))
    labels = training.data.test_labels
    assert record.test_accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert record.test_loss == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)


def test_divergence_ends_training_and_is_recorded(data):
    cell = Cell("lenet5", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42)
    training = Training(cell, Settings(epochs=5), data("fashion_mnist", 256, 100))
    training.run_epoch()
    with torch.no_grad():
        training.network.linear1.weight[0, 0] = math.nan
    record = training.run_epoch()
    assert record.diverged and training.diverged and training.finished and len(training.records) == 2
    assert training.nonfinite_layer == "linear1"
    zeros = (training.data.test_labels == 0).double().mean().item()
    assert record.test_accuracy == zeros  # as published: class 0 throughout


@pytest.mark.parametrize("cell", [GOLDEN, Cell("lenet5", "fashion_mnist", "leaf-relu", "p24sl", "adam", 7)])
def test_training_repeats_and_resumes_bit_for_bit(cell, data):
    def run(interrupted: bool):
        images = data(cell.dataset, 300, 50)
        training = Training(cell, Settings(epochs=3), images)
        for _ in range(3):
            training.run_epoch()
            if interrupted:
                state = training.state_dict()
                torch.rand(11)  # whoever else draws in between
                training = Training(cell, Settings(epochs=3), images)
                training.load_state_dict(state)
        results = [(r.train_loss, r.train_loss_variance, r.test_loss, r.test_accuracy) for r in training.records]
        return results, snapshot(training.network), training.quantiles

    (records, weights, quantiles), *others = run(False), run(False), run(True)
    for other_records, other_weights, other_quantiles in others:
        assert other_records == records and not moved(weights, other_weights)
        assert all(torch.equal(a[k], b[k]) for a, b in zip(quantiles, other_quantiles, strict=True) for k in a)


@pytest.mark.parametrize("shuffle", [False, True])
def test_minibatches_are_the_same_however_many_are_augmented_at_once(data, monkeypatch, shuffle):
    settings = Settings(batch_size=16, train_images=90, test_images=10, shuffle=shuffle, validation_images=10)
    training = Training(Cell("lenet5", "cifar10", "relu", "classic", "adam", 42), settings, data("cifar10", 90, 10))
    expected = list(training._minibatches(7, 0))
    assert [len(labels) for _, labels in expected] == [16] * 5
    monkeypatch.setitem(training_module.AUGMENTED_AT_ONCE, "cpu", 2)
    for start in (0, 1, 4):
        found = list(training._minibatches(7, start))
        assert len(found) == 5 - start
        for ours, theirs in zip(found, expected[start:], strict=True):
            assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(ours, theirs, strict=True))
