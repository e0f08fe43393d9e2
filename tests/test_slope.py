"""LEAF and AHAF as ReLU with a slope that can learn, and why that of the paper cannot."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import skip_init

from leaf import ACTIVATIONS, AHAF, LEAF, replace_activations
from leaf.peers import Swish

FAMILIES = [(LEAF, "p3"), (AHAF, "gamma")]
ADAM_STEP = 1e-3
"""The step of Adam at the experiment's learning rate, whatever the gradient is."""


def trained(layer: nn.Module, steps: int = 20) -> nn.Module:
    """A layer after Adam's steps on inputs so small that a slope of 2^16 has a gradient too."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=ADAM_STEP)
    u = torch.linspace(-2e-5, 3e-5, 50)[:, None].expand(-1, 2)
    for _ in range(steps):
        optimizer.zero_grad()
        (1e12 * layer(u).sum()).backward()
        assert all((parameter.grad != 0).all() for parameter in layer.parameters())
        optimizer.step()
    return layer


def test_a_step_of_adam_is_less_than_half_a_float32_apart_at_the_papers_slope():
    papers, small = np.float32(2**16), np.float32(16)
    assert np.spacing(papers) / 2 == 2**-8 > ADAM_STEP  # upwards
    assert np.spacing(np.nextafter(papers, np.float32(0))) / 2 == 2**-9 > ADAM_STEP  # downwards
    assert np.spacing(small) / 2 < ADAM_STEP / 1000


@pytest.mark.parametrize(("family", "name"), FAMILIES)
def test_the_papers_slope_stays_and_a_small_one_learns(family, name):
    usual, small = trained(family((2,), "relu")), trained(family((2,), "relu", slope=16))
    assert (usual.get_parameter(name) == 2**16).all()
    moved = (small.get_parameter(name) - 16).abs()
    assert (moved > 10 * ADAM_STEP).all()  # of 20 steps


@pytest.mark.parametrize(("family", "name"), FAMILIES)
@pytest.mark.parametrize("slope", [1, 16, 100.0])
def test_it_starts_near_relu(family, name, slope):
    layer = family((1,), "relu", slope=slope)
    values = {key: parameter.item() for key, parameter in layer.named_parameters()}
    assert values == {key: p.item() for key, p in family((1,), "relu").named_parameters()} | {name: slope}
    u = torch.linspace(-15, 15, 100_001)[:, None]
    off = (layer(u) - torch.relu(u)).abs().max().item()
    assert off == pytest.approx(0.2785 / slope, rel=0.01)


@pytest.mark.parametrize(("family", "name"), FAMILIES)
def test_copies_files_and_reset(family, name):
    layer = family((3,), "relu", slope=16)
    assert repr(layer) == f"{family.__name__}(shape=(3,), form='relu', slope=16)"
    assert "slope" not in repr(family((3,), "relu"))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), skip_init(family, (3,), "relu", slope=16)):
        with torch.no_grad():
            other.get_parameter(name).zero_()
        other.reset_parameters()
        assert (other.get_parameter(name) == 16).all()


@pytest.mark.parametrize(
    ("family", "form", "slope", "error", "message"),
    [
        (LEAF, "silu", 16, ValueError, "LEAF: slope applies only to the form 'relu', not to 'silu'"),
        (Swish, "silu", 16, ValueError, "Swish: slope applies only to the form 'relu', not to 'silu'"),
        (LEAF, "relu", 0, ValueError, "LEAF: slope must be positive and finite, not 0"),
        (AHAF, "relu", float("inf"), ValueError, "AHAF: slope must be positive and finite, not inf"),
        (LEAF, "relu", float("nan"), ValueError, "LEAF: slope must be positive and finite, not nan"),
        (LEAF, "relu", "16", TypeError, "LEAF: slope must be a number, not '16'"),
        (LEAF, "relu", True, TypeError, "LEAF: slope must be a number, not True"),
    ],
)
def test_slopes_that_are_refused(family, form, slope, error, message):
    with pytest.raises(error, match=message):
        family((3,), form, slope=slope)


def test_the_grid_keeps_the_papers_slope():
    for name in ("leaf-relu", "ahaf-relu", "channel-leaf-relu"):
        layer = ACTIVATIONS[name].build((3,))
        assert layer.slope is None and (layer.get_parameter(layer.slope_parameter) == 2**16).all()


def test_in_a_model_that_exists():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    replace_activations(model, lambda shape, form: LEAF(shape, form, slope=16), example_input=torch.zeros(1, 4))
    assert isinstance(model[1], LEAF) and (model[1].p3 == 16).all()
