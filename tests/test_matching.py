"""The match of learned curves with known functions, on curves with a known answer."""

import numpy as np
import pytest
import safetensors.numpy
import torch

from leaf import LEAF
from leaf.activations import BASE_FUNCTIONS
from leaf.analysis import forms as module
from leaf.analysis.forms import BAND_LEVELS, CURVE_INPUTS, clamped_share, curves, input_bins, read_forms
from leaf.analysis.matching import FREEDOMS, FUNCTIONS, SCALES, SHIFTS, match, near, summary
from leaf.experiment.cells import SHOWN, Cell
from leaf.experiment.errors import UserError
from leaf.experiment.outputs import write_tensors

INPUTS = np.linspace(-15.9, 15.9, 256)
NORMAL = np.exp(-((INPUTS / 3) ** 2) / 2)
LEARNABLE = Cell("lenet5", "cifar10", "leaf-tanh", "p24sl", "adam", 42)


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


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_matches_are_those_of_least_squares_one_candidate_at_a_time(freedom):
    inputs, weights = INPUTS[::16], NORMAL[::16]
    found = match(
        units := np.random.default_rng(0).standard_normal((6, len(inputs))).cumsum(1), inputs, weights, freedom
    )
    scales, shifts = (SCALES[::2], SHIFTS) if freedom == "shift" else (SCALES, [0.0])
    root = np.sqrt(weights)
    for unit, function, residual in zip(units, *found, strict=True):
        mean = 0 if freedom == "scale" else np.average(unit, weights=weights)
        size, left = np.linalg.norm((unit - mean) * root), []
        for name in FUNCTIONS:
            known = torch.nn.Identity() if name == "linear" else BASE_FUNCTIONS[name]()
            values = [known(torch.from_numpy(b * (inputs - d))).numpy() for b in scales for d in shifts]
            columns = [
                np.stack([of_one, np.ones_like(inputs)][: 1 if freedom == "scale" else 2], 1) for of_one in values
            ]
            fits = [matrix @ np.linalg.lstsq(matrix * root[:, None], unit * root)[0] for matrix in columns]
            left.append(min(np.linalg.norm((unit - fit) * root) / size for fit in fits))
        assert residual == pytest.approx(min(left), abs=1e-6)
        assert left[function] == pytest.approx(min(left), abs=1e-9)


def test_a_curve_far_from_all_is_near_to_none():
    noise = np.random.default_rng(0).standard_normal((50, 256))
    found = match(noise, INPUTS, np.ones(256), "shift")
    assert not any(near(found, name, 0.1).any() for name in FUNCTIONS)


def test_inputs_beyond_16_count_where_they_lie_or_at_the_ends_of_an_older_file(tmp_path):
    """A curve like Tanh within ±16, and far out like ReLU: the older range does not show what the layer sees there."""
    values = {"p1": 0.02, "p2": 2.0, "p3": 2.0, "p4": -1.0}
    tensors = {f"parameters/activation1.{name}": torch.full((3,), value) for name, value in values.items()}
    inputs = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 600
    edges = torch.linspace(-3000, 3000, 301)
    newer = tensors | {"inputs/activation1": torch.histc(inputs, 300, -3000, 3000), "input_edges/activation1": edges}
    older = tensors | {"inputs/activation1": torch.histc(inputs.clamp(-16, 16), 256, -16, 16)}
    for of_file, nearest, beyond in ((newer, ("relu", "silu"), 0.0), (older, ("tanh",), 0.978)):
        write_tensors(tmp_path / "forms.safetensors", of_file)
        forms = read_forms(LEARNABLE, tmp_path)
        assert forms["inputs/activation1"].sum() == 5000
        assert len(input_bins(forms, "activation1")) == len(forms["inputs/activation1"]) + 1
        shares = forms["matches/activation1"][:, 0]
        assert shares.max() == 1 and FUNCTIONS[shares.argmax()] in nearest
        assert clamped_share(forms, "activation1") == pytest.approx(beyond, abs=0.01)


def write_forms(directory, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = {f"parameters/activation1.p{k}": torch.randn(40, generator=generator) + shift for k in (1, 2, 3, 4)}
    inputs = {"inputs/activation1": torch.arange(256)}
    write_tensors(directory / "forms.safetensors", parameters | inputs)


def test_bands_are_quantiles_over_the_units(tmp_path):
    write_forms(tmp_path, 0.0)
    tensors = safetensors.numpy.load_file(tmp_path / "forms.safetensors")
    units = curves("leaf-tanh", {f"p{k}": tensors[f"parameters/activation1.p{k}"] for k in (1, 2, 3, 4)}, CURVE_INPUTS)
    bands = read_forms(LEARNABLE, tmp_path)["bands/activation1"]
    np.testing.assert_array_equal(bands, np.quantile(units, BAND_LEVELS, axis=0).astype(np.float32))


def test_what_forms_show_is_kept_until_they_or_the_code_change(tmp_path, monkeypatch):
    write_forms(tmp_path, 0.0)
    computed = read_forms(LEARNABLE, tmp_path)
    whole = (tmp_path / SHOWN).read_bytes()

    def fail(*arguments: object) -> None:
        raise AssertionError("matched again")

    monkeypatch.setattr(module, "match", fail)
    kept = read_forms(LEARNABLE, tmp_path)
    assert kept.keys() == computed.keys()
    assert all(np.array_equal(kept[name], computed[name], equal_nan=True) for name in computed)
    for place, change in (
        ("code_digest", lambda name: "of other code"),
        ("plugins_of", lambda cell: {"mine.py": "of another version"}),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, place, change)
            with pytest.raises(AssertionError, match="matched again"):
                read_forms(LEARNABLE, tmp_path)
    for damaged in (whole[:-1], b""):
        (tmp_path / SHOWN).write_bytes(damaged)
        with pytest.raises(AssertionError, match="matched again"):
            read_forms(LEARNABLE, tmp_path)
    (tmp_path / SHOWN).write_bytes(whole)
    write_forms(tmp_path, 1.0)
    with pytest.raises(AssertionError, match="matched again"):
        read_forms(LEARNABLE, tmp_path)


def test_where_nothing_can_be_written_forms_are_read_all_the_same(tmp_path, monkeypatch):
    write_forms(tmp_path, 0.0)

    def fail(*arguments: object) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(module, "write_whole", fail)
    assert "matches/activation1" in read_forms(LEARNABLE, tmp_path)
    assert not (tmp_path / SHOWN).exists()
