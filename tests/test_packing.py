"""Packed optimizers, which train on a GPU, against those of the separate parameters, on a CPU."""

from functools import partial
from importlib import import_module

import pytest
import torch
from test_graphs import CELL, assert_equal, expected, replays  # noqa: F401 # fixtures
from test_graphs import SETTINGS as WITH_FULL_MINIBATCHES
from torch.utils._python_dispatch import TorchDispatchMode

from leaf.experiment.cells import Cell
from leaf.experiment.packing import ALIGNMENT, PackedOptimizer
from leaf.experiment.scales import Settings
from leaf.experiment.training import Training

CELLS = [
    Cell("kerasnet", "fashion_mnist", "leaf-tanh", "dspt-p24sl", "adam", 42),  # weights of one input channel
    Cell("lenet5", "fashion_mnist", "leaf-silu", "p24sl", "rmsprop", 42),
    Cell("lenet5", "fashion_mnist", "ahaf-silu", "tune", "adam", 42),
    Cell("lenet5", "fashion_mnist", "frozen_p2-leaf-tanh", "dspt-p24sl", "adam", 42),  # parameters without a gradient
]
SETTINGS = Settings(epochs=2, batch_size=16, train_images=40, test_images=10)


@pytest.fixture(autouse=True)
def capturable_on_a_cpu(monkeypatch):
    for module in ("adam", "rmsprop"):
        monkeypatch.setattr(
            import_module(f"torch.optim.{module}"), "_get_capturable_supported_devices", lambda *_, **__: ["cpu"]
        )


def training(cell: Cell, data, capturable: bool, packed: bool, settings: Settings = SETTINGS) -> Training:
    """A cell in training as on a GPU, where optimizers are capturable and packed, or with one of the two."""
    training = Training(cell, settings, data(cell.dataset, settings.train_images, settings.test_images))
    for stage in training.stages:
        groups = stage.optimizer.param_groups
        for group in groups:
            group["capturable"] = capturable
        if packed:
            groups = [{key: group[key] for key in ("params", "lr", "weight_decay")} for group in groups]
            options = {key: value for key, value in stage.optimizer.defaults.items() if key in ("alpha", "eps")}
            build = partial(type(stage.optimizer), foreach=False, capturable=capturable, **options)
            stage.optimizer = PackedOptimizer(groups, build)
    training.take_step = training._captured_step()
    return training


def run(training: Training) -> Training:
    """Train to the end, and keep the random streams as they are then."""
    while not training.finished:
        training.run_epoch()
    streams = training.streams.state_dict()
    training.streams.state_dict = lambda: streams  # type: ignore[method-assign]
    return training


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_trains_to_the_same_bits_and_state(data, cell, capturable):
    packed, separate = (run(training(cell, data, capturable, packed)) for packed in (True, False))
    assert_equal(packed, separate)
    for ours, theirs in zip(packed.network.parameters(), separate.network.parameters(), strict=True):
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_resumes_from_a_state_of_either(data, tmp_path, packed, epochs):
    """Saves and loads the state as a file, as a job does."""
    whole, interrupted = run(training(CELLS[0], data, True, False)), training(CELLS[0], data, True, packed)
    for _ in range(epochs):
        interrupted.run_epoch()
    torch.save(interrupted.state_dict(), tmp_path / "state.pt")
    resumed = training(CELLS[0], data, True, not packed)
    resumed.run_epoch()  # leaves a state that must not survive
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_equal(run(resumed), whole)


def test_packed_steps_are_captured(data, replays, expected):  # noqa: F811
    """With the graph's stand-in of ``test_graphs``, which computes the second minibatch twice."""
    assert_equal(run(training(CELL, data, False, True, WITH_FULL_MINIBATCHES)), expected)
    assert replays == [64] * 5


def test_a_step_takes_as_many_operations_for_all_parameters_as_for_one():
    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            operations.append(str(function))
            return function(*args, **(kwargs or {}))

    counts = []
    for parameters in ([torch.nn.Parameter(torch.ones(3)) for _ in range(count)] for count in (1, 5)):
        optimizer = PackedOptimizer([{"params": parameters, "lr": 0.1}], partial(torch.optim.Adam, foreach=False))
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()  # makes the state
        operations: list[str] = []
        with Count():
            optimizer.step()
        counts.append(len([name for name in operations if "as_strided" not in name]))
    assert counts[0] == counts[1] > 5


def test_parameters_are_aligned_as_a_gpu_allocates_them():
    separate = [torch.nn.Parameter(torch.ones(size)) for size in (3, ALIGNMENT, ALIGNMENT + 1, 5)]
    pack = PackedOptimizer([{"params": separate, "lr": 0.1}], torch.optim.SGD).packs[0]
    assert all((p.data_ptr() - pack.values.data_ptr()) % (4 * ALIGNMENT) == 0 for p in separate)
    assert pack.values.sum() == sum(p.numel() for p in separate)
