"""Tests that need a GPU: its kernel, captured steps, resumed training. They are skipped without one."""

import pytest
import torch
from conftest import published, published_cell
from test_graphs import SETTINGS, assert_equal
from test_kernels import FAMILIES, SHAPES, gradients, inputs, layer_of, true_gradients

from leaf.experiment import training as training_module
from leaf.experiment.augmentation import to_unit_interval
from leaf.experiment.cells import Cell
from leaf.experiment.devices import training_device
from leaf.experiment.graphs import CapturedStep
from leaf.experiment.job import train_cell
from leaf.experiment.scales import Settings
from leaf.experiment.training import Training
from leaf.kernels import kernel_for

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
    pytest.mark.filterwarnings("error:training steps cannot be captured"),
]

CELLS = [
    Cell("lenet5", "cifar10", "relu", "classic", "rmsprop", 42),
    Cell("lenet5", "cifar10", "ahaf-silu", "dspt", "adam", 42),
    Cell("kerasnet", "cifar10", "leaf-tanh", "dspt-p24sl", "adam", 42),
]


@pytest.fixture
def gpu():
    with training_device("cuda") as device:
        yield device


def trained(cell: Cell, data, device: torch.device, precision: str = "float32") -> Training:
    training = Training(cell, SETTINGS, data("cifar10", 150, 50), device, precision=precision)
    while not training.finished:
        training.run_epoch()
    streams = training.streams.state_dict()
    training.streams.state_dict = lambda: streams  # type: ignore[method-assign]
    return training


@pytest.mark.parametrize("shape", [*SHAPES, (500,)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_kernel_against_float64(gpu, family, shape, channels_last):
    assert kernel_for(gpu) == "triton"
    layer, u = layer_of(family, shape), inputs(shape, channels_last=channels_last and len(shape) == 3)
    true = true_gradients(layer, u)
    for ours, exact in zip(gradients(layer.to(gpu), u.to(gpu)), true, strict=True):
        torch.testing.assert_close(ours.cpu().double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if min(shape[1:]) > 1], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_kernel_with_pooling_against_float64(gpu, family, shape):
    layer, u = layer_of(family, shape), inputs(shape, channels_last=True)
    true = true_gradients(layer, u, pooled=True)
    for ours, exact in zip(gradients(layer.to(gpu), u.to(gpu), pooled=True), true, strict=True):
        torch.testing.assert_close(ours.cpu().double(), exact, rtol=1e-4, atol=1e-4)


def test_pixels_become_the_same_numbers(gpu):
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_unit_interval(pixels.to(gpu)).cpu(), to_unit_interval(pixels))


@pytest.mark.parametrize("precision", ["float32", "tf32", "tf32-convolutions", "bfloat16"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_captured_and_eager_steps_give_the_same_bits(data, gpu, monkeypatch, cell, precision):
    recorded = trained(cell, data, gpu, precision)
    assert isinstance(recorded.take_step, CapturedStep)
    monkeypatch.setattr(training_module, "captured", lambda step, *_: step)
    assert_equal(trained(cell, data, gpu, precision), recorded)


@pytest.mark.parametrize("stopped_at", [1, 2, 3])
def test_an_interrupted_epoch_resumes_to_the_same_bits(data, gpu, tmp_path, stopped_at):
    """Saves and loads the state as a file, as a job does."""
    expected = trained(CELLS[2], data, gpu)

    class Stop(Exception):
        pass

    def progress(step: int, steps: int) -> None:
        if step == stopped_at and training.epochs_done == 1:
            raise Stop

    training = Training(CELLS[2], SETTINGS, data("cifar10", 150, 50), gpu)
    training.run_epoch(progress)
    with pytest.raises(Stop):
        training.run_epoch(progress)
    torch.save(training.state_dict(), tmp_path / "state.pt")
    training = Training(CELLS[2], SETTINGS, data("cifar10", 150, 50), gpu)
    training.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True))
    while not training.finished:
        training.run_epoch()
    assert_equal(training, expected)


@pytest.mark.parametrize("entry", published("steps"), ids=lambda entry: published_cell(entry).name)
def test_published_losses(data, gpu, entry):
    """The first five minibatches without dropout, which differs on a GPU; equal up to rounding on a GPU."""
    training = Training(published_cell(entry), Settings(1, train_images=640), data(entry["dataset"], 640, 1), gpu)
    for layer in training.network:
        if isinstance(layer, torch.nn.Dropout | torch.nn.Dropout2d):
            layer.p = 0.0
    torch.testing.assert_close(training.train_epoch().tolist(), entry["losses_float64"][:5], rtol=0, atol=1e-3)


def test_a_job_from_nothing_to_its_files(empty_project, gpu):
    settings, said = Settings(epochs=1, train_images=256, test_images=100), []
    train_cell(CELLS[2], "tiny", settings, "cuda", log=said.append)
    train_cell(CELLS[2], "tiny", settings, "cuda", log=said.append)
    assert "1 epochs, test accuracy" in said[0] and "kept" in said[1]
