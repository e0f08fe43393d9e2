"""The match of learned curves with known functions, on curves with a known answer."""

import numpy as np
import pytest
import torch

from leaf import LEAF
from leaf.activations import BASE_FUNCTIONS
from leaf.analysis.forms import clamped_share, input_bins, read_forms
from leaf.analysis.matching import FREEDOMS, FUNCTIONS, match, near, summary
from leaf.experiment.cells import Cell
from leaf.experiment.outputs import write_tensors

INPUTS = np.linspace(-15.9, 15.9, 256)
NORMAL = np.exp(-((INPUTS / 3) ** 2) / 2)


def curves_of(form: str, units: int = 4) -> np.ndarray:
    layer = LEAF((units,), form)
    return layer(torch.from_numpy(INPUTS).float()[:, None].expand(-1, units)).detach().T.numpy()


@pytest.mark.parametrize("form", LEAF.forms)
def test_initial_functions_are_recognized(form):
    matches = match(curves_of(form), INPUTS, NORMAL)
    assert {FUNCTIONS[place] for place in matches.function} == {form}
    assert matches.residual.max() < 0.02


@pytest.mark.parametrize("form", [*BASE_FUNCTIONS, "linear"])
@pytest.mark.parametrize(("inner", "outer"), [(0.5, 3.0), (-1.7, 0.2), (4.0, -2.0)])
def test_scaled_and_mirrored_functions_are_recognized(form, inner, outer):
    u = torch.from_numpy(inner * INPUTS)
    curve = outer * (u if form == "linear" else BASE_FUNCTIONS[form]()(u)).numpy()[None]
    found = match(curve, INPUTS, NORMAL)
    names = {FUNCTIONS[place] for place in found.function}
    assert names == {form} and found.residual.max() < 0.03


def test_only_where_the_inputs_are():
    """A curve that equals tanh only where inputs occur matches tanh; on a small enough range it is a line."""
    curve = np.where(np.abs(INPUTS) < 6, np.tanh(INPUTS), 50.0)[None]
    near = np.where(np.abs(INPUTS) < 6, 1.0, 0.0)
    assert FUNCTIONS[match(curve, INPUTS, near).function[0]] == "tanh"
    assert match(curve, INPUTS, near).residual[0] < 0.02 < match(curve, INPUTS, np.ones(256)).residual[0]


def test_noise_is_like_nothing():
    noise = np.random.default_rng(0).standard_normal((50, 256))
    assert match(noise, INPUTS, np.ones(256)).residual.min() > 0.8


def test_curves_of_a_cell_that_diverged_are_like_nothing():
    curves = curves_of("silu")
    curves[0] = np.nan
    matches = match(curves, INPUTS, NORMAL)
    assert matches.function[0] == -1 and np.isnan(matches.residual[0])
    assert summary(matches)[FUNCTIONS.index("silu"), 0] == 0.75 and summary(matches)[:, 0].sum() == 0.75
    assert np.isnan(summary(match(np.full_like(curves, np.nan), INPUTS, NORMAL))).all()


def test_summary():
    mixed = np.concatenate([curves_of("silu", 3), curves_of("tanh", 1)])
    found = summary(match(mixed, INPUTS, NORMAL))
    assert dict(zip(FUNCTIONS, found[:, 0], strict=True)) == {
        "relu": 0, "silu": 0.75, "tanh": 0.25, "sigmoid": 0, "linear": 0,
    }  # fmt: skip
    assert found[1, 1] < 0.02 and np.isnan(found[0, 1])


@pytest.mark.parametrize(
    ("offset", "shift", "matched_by"), [(0.0, 0.0, FREEDOMS), (0.7, 0.0, FREEDOMS[1:]), (0.7, 1.5, FREEDOMS[2:])]
)
def test_a_freedom_of_the_match_reduces_the_residual(offset, shift, matched_by):
    """A SiLU with an offset and a shift matches SiLU only if the match allows both."""
    u = torch.from_numpy(INPUTS)
    curve = (1.4 * torch.nn.functional.silu(1.1 * (u - shift)) + offset).numpy()[None]
    for freedom in FREEDOMS:
        assert near(match(curve, INPUTS, NORMAL, freedom), "silu", 0.05).all() == (freedom in matched_by)


def test_with_an_offset_tanh_and_sigmoid_are_one_function():
    found = match(np.tanh(INPUTS)[None], INPUTS, NORMAL, "offset")
    assert FUNCTIONS[found.function[0]] in ("tanh", "sigmoid") and found.residual[0] < 0.02
    assert not near(found, "silu", 0.1).any()


def test_a_curve_far_from_all_is_near_to_none():
    noise = np.random.default_rng(0).standard_normal((50, 256))
    found = match(noise, INPUTS, np.ones(256), "shift")
    assert not any(near(found, name, 0.1).any() for name in FUNCTIONS)


def test_inputs_beyond_16_count_where_they_lie_or_at_the_ends_of_an_older_file(tmp_path):
    """A curve like Tanh within ±16, and far out like ReLU: the older range does not show what the layer sees there."""
    cell = Cell("lenet5", "cifar10", "leaf-tanh", "p24sl", "adam", 42)
    values = {"p1": 0.02, "p2": 2.0, "p3": 2.0, "p4": -1.0}
    tensors = {f"parameters/activation1.{name}": torch.full((3,), value) for name, value in values.items()}
    inputs = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 600
    edges = torch.linspace(-3000, 3000, 301)
    newer = tensors | {"inputs/activation1": torch.histc(inputs, 300, -3000, 3000), "input_edges/activation1": edges}
    older = tensors | {"inputs/activation1": torch.histc(inputs.clamp(-16, 16), 256, -16, 16)}
    for of_file, nearest, beyond in ((newer, ("relu", "silu"), 0.0), (older, ("tanh",), 0.978)):
        write_tensors(tmp_path / "forms.safetensors", of_file)
        forms = read_forms(cell, tmp_path)
        assert forms["inputs/activation1"].sum() == 5000
        assert len(input_bins(forms, "activation1")) == len(forms["inputs/activation1"]) + 1
        shares = forms["matches/activation1"][:, 0]
        assert shares.max() == 1 and FUNCTIONS[shares.argmax()] in nearest
        assert clamped_share(forms, "activation1") == pytest.approx(beyond, abs=0.01)
