"""Captured training steps. CUDA graphs need a GPU (tests/test_gpu.py); here a substitute replaces them."""

import pytest
import torch

from leaf.experiment import graphs
from leaf.experiment import training as training_module
from leaf.experiment.cells import Cell
from leaf.experiment.graphs import CapturedStep
from leaf.experiment.plugins import load_plugins, unload_plugins
from leaf.experiment.scales import Settings
from leaf.experiment.training import Training

CELL = Cell("kerasnet", "cifar10", "leaf-silu", "dspt-p24sl", "adam", 42)
SETTINGS = Settings(epochs=3, batch_size=64, train_images=150, test_images=50)  # two full minibatches and a smaller one


def train(data, epochs: int = SETTINGS.epochs) -> Training:
    training = Training(CELL, SETTINGS, data("cifar10", 150, 50))
    for _ in range(epochs):
        training.run_epoch()
    return training


def assert_equal(training: Training, expected: Training) -> None:
    """Check that losses, accuracies, weights and random streams are equal bit by bit."""
    seconds = {"train_seconds": 0.0}
    assert [vars(r) | seconds for r in training.records] == [vars(r) | seconds for r in expected.records]
    ours, theirs = training.state_dict(), expected.state_dict()
    for part in ("network", "optimizers", "streams"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)


@pytest.fixture
def expected(data) -> Training:
    """The cell trained without captured steps, with the final state of dropout's stream."""
    training = train(data)
    streams = training.streams.state_dict()
    training.streams.state_dict = lambda: streams  # type: ignore[method-assign]
    return training


@pytest.fixture
def replays(monkeypatch, expected) -> list[int]:
    """Train on a CPU as on a GPU: capture steps, and augment many minibatches at once.

    Returns the number of images of each replayed minibatch.
    """
    replayed = []

    def record(stream, step, inputs):
        places, loss = [tensor.clone() for tensor in inputs], torch.empty(())

        def replay(*inputs):
            for place, tensor in zip(places, inputs, strict=True):
                place.copy_(tensor)
            loss.copy_(step(*places))
            replayed.append(len(places[0]))
            return loss.clone()

        return replay

    def captured(step, state, minibatch, device):
        return CapturedStep(step, state, minibatch, torch.default_generator, None)

    monkeypatch.setitem(training_module.AUGMENTED_AT_ONCE, "cpu", 2)
    monkeypatch.setattr(graphs, "take_on", lambda stream, step, *inputs: step(*inputs))
    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(training_module, "captured", captured)
    return replayed


def test_a_captured_cell_is_the_same(data, replays, expected):
    assert_equal(train(data), expected)
    assert replays == [64] * 5  # once to see that it gives the same, then in the second and third epoch


def test_a_captured_cell_resumes_from_anywhere(data, replays, expected):
    class Stop(Exception):
        pass

    def stop(step: int, steps: int) -> None:
        if step == minibatch:
            raise Stop

    for epochs, minibatch in [(0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]:
        training = train(data, epochs)
        with pytest.raises(Stop):
            training.run_epoch(stop)
        state = training.state_dict()
        training = train(data, epochs=0)
        training.load_state_dict(state)
        replays.clear()
        while not training.finished:
            training.run_epoch()
        assert_equal(training, expected)
        assert set(replays) == ({64} if (epochs, minibatch) != (2, 2) else set())


@pytest.mark.parametrize("trouble", ["other numbers", "other draws", "an error"])
def test_a_graph_that_differs_from_the_step_is_not_used(data, replays, expected, monkeypatch, trouble):
    record = graphs.record

    def troubled(stream, step, inputs):
        if trouble == "an error":
            step(*inputs)
            raise RuntimeError("operation not permitted when stream is capturing\nwith more lines")
        replay = record(stream, step, inputs)

        def take(*inputs):
            if trouble == "other draws":
                torch.rand(1)
            loss = replay(*inputs)
            return loss.nextafter(torch.tensor(9.0)) if trouble == "other numbers" else loss

        return take

    monkeypatch.setattr(graphs, "record", troubled)
    reason = "not permitted when stream is capturing$" if trouble == "an error" else "step has other results$"
    with pytest.warns(UserWarning, match=f"cannot be captured as a CUDA graph.*{reason}"):
        training = train(data)
    assert_equal(training, expected)
    assert len(replays) == (trouble != "an error")


def test_plugins_are_not_captured(data, replays):
    load_plugins(["examples/my_activation.py"])
    try:
        cell = Cell("lenet5", "fashion_mnist", "mish", "classic", "adam", 42)
        training = Training(cell, Settings(epochs=1, batch_size=64), data("fashion_mnist", 256, 100))
        training.run_epoch()
    finally:
        unload_plugins()
    assert not isinstance(training.take_step, CapturedStep)
    assert not replays
