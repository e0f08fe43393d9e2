"""AHAF and LEAF against their formulas in float64, autograd, and their initial functions."""

import copy
import functools
import io
import math
import pickle

import pytest
import torch
from torch.autograd import forward_ad
from torch.autograd.functional import jacobian

from leaf import ACTIVATIONS, AHAF, LEAF
from leaf.activations import BASE_FUNCTIONS, Adaptive

EVERY_FORM = [(family, form) for family in (AHAF, LEAF) for form in family.forms]


def formula(layer: Adaptive, u: torch.Tensor, parameters: list[torch.Tensor] | None = None) -> torch.Tensor:
    """The activation by the paper's formula, in float64 and with autograd."""
    p = parameters or [parameter.double() for parameter in layer.parameters()]
    u = u.double()
    if isinstance(layer, AHAF):
        return p[0] * u * torch.sigmoid(p[1] * u)
    return (p[0] * u + p[1]) * torch.sigmoid(p[2] * u) + p[3]


def moved(family: type[Adaptive], shape: tuple[int, ...], form: str) -> Adaptive:
    """A layer with parameters that differ from their initial values and from each other."""
    layer = family(shape, form)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator) * parameter.abs().clamp(min=1)
    return layer


@pytest.mark.parametrize(("family", "form"), EVERY_FORM)
@pytest.mark.parametrize(("shape", "channels_last"), [((3, 4, 5), False), ((3, 4, 5), True), ((7,), False)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.1)])
def test_values_and_gradients(family, form, shape, channels_last, dtype, tolerance):
    generator = torch.Generator().manual_seed(2)
    layer = moved(family, shape, "silu" if form == "relu" else form).to(dtype)
    u = torch.randn(6, *shape, generator=generator).to(dtype)
    weights = torch.randn(6, *shape, generator=generator).to(dtype)
    if channels_last:
        u = u.contiguous(memory_format=torch.channels_last)
    u.requires_grad_()
    y = layer(u)
    (y * weights).sum().backward()

    true_u = u.detach().double().requires_grad_()
    true_parameters = [parameter.detach().double().requires_grad_() for parameter in layer.parameters()]
    true_y = formula(layer, true_u, true_parameters)
    (true_y * weights.double()).sum().backward()

    assert y.dtype == dtype and y.shape == u.shape and y.stride() == u.stride()
    torch.testing.assert_close(y.double(), true_y, rtol=tolerance, atol=tolerance)
    for ours, true in zip([u, *layer.parameters()], [true_u, *true_parameters], strict=True):
        torch.testing.assert_close(ours.grad.double(), true.grad, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(("family", "form"), EVERY_FORM)
def test_gradcheck(family, form):
    layer = moved(family, (5,), "silu" if form == "relu" else form).double()
    u = torch.linspace(-3, 3, 20, dtype=torch.float64).view(4, 5).requires_grad_()

    def call(u, *parameters):
        return torch.func.functional_call(layer, dict(zip(layer.parameter_names, parameters, strict=True)), (u,))

    assert torch.autograd.gradcheck(call, (u, *layer.parameters()))
    assert torch.autograd.gradgradcheck(call, (u, *layer.parameters()))


# float32 rounding of sigmoid near 1 leaves these errors, each side its own; ReLU's form is off where |u| is of the
# order of 1 / 2^16
INITIAL_ERRORS = {"relu": 5e-6, "silu": 2e-6, "tanh": 5e-7, "sigmoid": 1.2e-7}


@pytest.mark.parametrize(("family", "form"), EVERY_FORM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_starts_as_the_function_it_imitates(family, form, dtype):
    u = torch.linspace(-15, 15, 100_001, dtype=dtype)[:, None]
    error = (family((1,), form).to(dtype)(u) - BASE_FUNCTIONS[form]()(u)).abs().max().item()
    assert error < (INITIAL_ERRORS[form] if form == "relu" or dtype == torch.float32 else 1e-14)


def test_ahaf_has_no_tanh():
    with pytest.raises(ValueError, match="AHAF has no form 'tanh'; its forms are: relu, silu"):
        AHAF((3,), "tanh")


@pytest.mark.parametrize(("family", "form"), EVERY_FORM)
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_any_finite_input_gives_finite_values_and_gradients(family, form, size):
    layer = family((4,), form)
    u = (size * torch.tensor([[-1.0, -0.5, 0.5, 1.0], [0.0, -0.0, 0.25, -0.25]])).requires_grad_()
    y = layer(u)
    y.sum().backward()
    for tensor in (y, u.grad, *(parameter.grad for parameter in layer.parameters())):
        assert tensor.isfinite().all()
    torch.testing.assert_close(y.double(), formula(layer, u), rtol=1e-5, atol=1e-7)


def test_infinite_and_missing_inputs_give_what_the_formula_gives():
    u = torch.tensor([[math.nan, math.inf, -math.inf]])
    for family, form in EVERY_FORM:
        layer = family((3,), form)
        torch.testing.assert_close(layer(u).double(), formula(layer, u), equal_nan=True)


@pytest.mark.parametrize("shape", [(3, 4, 5), (7,)])
def test_empty_batch(shape):
    layer = LEAF(shape, "tanh")
    u = torch.empty(0, *shape, requires_grad=True)
    layer(u).sum().backward()
    assert layer(u).shape == u.shape and all((parameter.grad == 0).all() for parameter in layer.parameters())


def test_skips_gradients_that_are_not_needed():
    layer = LEAF((4,), "silu")
    layer.requires_grad_(False)
    u = torch.randn(3, 4, requires_grad=True)
    layer(u).sum().backward()
    assert u.grad is not None and all(parameter.grad is None for parameter in layer.parameters())
    layer.requires_grad_(True)
    layer(u.detach()).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_func_grad_and_vmap():
    layer = moved(LEAF, (4,), "silu").double()
    parameters = dict(layer.named_parameters())
    u = torch.randn(5, 4, dtype=torch.float64)

    def loss(parameters, sample):
        return torch.func.functional_call(layer, parameters, (sample[None],)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, u)
    layer(u).square().sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(per_sample[name].sum(0), parameter.grad)


def test_derivatives_of_every_kind_that_torch_takes():
    """Second derivatives forward over reverse, and batched ones, against torch's derivatives of the formula."""
    for dtype in (torch.float64, torch.float32):
        layer = moved(LEAF, (4,), "silu").to(dtype)
        u = torch.randn(4, dtype=dtype)

        def ours(sample):
            return layer(sample[None]).square().sum()  # noqa: B023 - called in the same round

        def written(sample):
            return formula(layer, sample[None]).square().sum()  # noqa: B023

        close = functools.partial(torch.testing.assert_close, check_dtype=False, rtol=1e-4, atol=1e-5)
        close(torch.func.hessian(ours)(u), torch.func.hessian(written)(u))
        along = torch.randn(4, dtype=dtype)
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(ours(forward_ad.make_dual(u, along))).tangent
        close(tangent, torch.func.grad(written)(u) @ along)
        both = [jacobian(lambda s: layer(s[None])[0], u, vectorize=vectorize) for vectorize in (True, False)]  # noqa: B023
        close(*both)


def test_an_input_of_another_shape_is_refused_though_it_has_as_many_elements():
    for family in (LEAF, AHAF):
        with pytest.raises(
            RuntimeError, match=r"of shape \(2, 3, 4\) takes inputs \(\*, 2, 3, 4\), not of size \(5, 2, 4, 3\)"
        ):
            family((2, 3, 4), "silu")(torch.randn(5, 2, 4, 3))


def test_compile():
    layer = moved(LEAF, (3, 4, 4), "silu")
    u = torch.randn(2, 3, 4, 4)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(u), layer(u))


@pytest.mark.parametrize(("family", "form"), EVERY_FORM)
def test_copies_and_files(family, form):
    layer = moved(family, (3, 4, 4), form)
    u = torch.randn(2, 3, 4, 4)
    fresh = family((3, 4, 4), form)
    fresh.load_state_dict(layer.state_dict())
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = family((3, 4, 4), form)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (fresh, loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(u), layer(u)) and repr(other) == repr(layer)
    assert list(layer.state_dict()) == list(family.parameter_names)
    assert layer.to(torch.float64)(u.double()).dtype == torch.float64


def test_autocast():
    linear, layer = torch.nn.Linear(8, 4), LEAF((4,), "silu")
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(linear(torch.randn(3, 8)))
    assert y.dtype == torch.float32  # bfloat16 inputs meet float32 parameters
    y.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


SHARED = [  # sharing, channel dimension, one sample's shape, that of the parameters
    ("channel", 1, (3, 4, 6), (3, 1, 1)),
    ("channel", -1, (3, 4, 6), (1, 1, 6)),
    ("channel", 2, (3, 4, 6), (1, 4, 1)),
    ("layer", 1, (3, 4, 6), (1, 1, 1)),
    ("channel", -1, (5, 8), (1, 8)),
    ("channel", 1, (7,), (7,)),
    ("layer", 1, (7,), (1,)),
]


@pytest.mark.parametrize(("sharing", "dim", "shape", "own_shape"), SHARED)
@pytest.mark.parametrize("family", [AHAF, LEAF])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_shared_parameters(sharing, dim, shape, own_shape, family, dtype, channels_last):
    """Equal to parameters per element with equal values; gradients are the sums of theirs."""
    shared, own = family(shape, "silu", sharing, dim).to(dtype), family(shape, "silu").to(dtype)
    u = torch.randn(5, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    if channels_last and len(shape) == 3:
        u = u.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for name in family.parameter_names:
            getattr(shared, name).add_(torch.randn(own_shape, generator=torch.Generator().manual_seed(2)).to(dtype))
            getattr(own, name).copy_(getattr(shared, name).expand(shape))
    assert {tuple(p.shape) for p in shared.parameters()} == {own_shape}
    weights = torch.randn(5, *shape, dtype=dtype, generator=torch.Generator().manual_seed(3))
    for layer in (shared, own):
        (layer(u) * weights).sum().backward()
    torch.testing.assert_close(shared(u), own(u))
    for name in family.parameter_names:
        sums = getattr(own, name).grad.sum_to_size(own_shape)
        torch.testing.assert_close(getattr(shared, name).grad, sums, rtol=1e-4, atol=1e-4)
    larger = torch.randn(
        2, *(2 * size if size_of == 1 else size for size, size_of in zip(shape, own_shape, strict=True))
    )
    torch.testing.assert_close(shared(larger.to(dtype)), formula(shared, larger).to(dtype), rtol=1e-4, atol=1e-5)
    file = io.BytesIO()
    torch.save(shared.state_dict(), file)
    file.seek(0)
    fresh = family(shape, "silu", sharing, dim).to(dtype)
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(fresh(u), shared(u)) and repr(fresh) == repr(shared)


def test_kinds_of_sharing():
    with pytest.raises(ValueError, match="LEAF has no sharing 'row'; the values are: element, channel, layer"):
        LEAF((3, 4, 6), "silu", sharing="row")
    for dim in (0, 4, -4):
        with pytest.raises(
            ValueError, match=rf"LEAF: inputs \(N, \*\(3, 4, 6\)\) have no dimension {dim} for channels"
        ):
            LEAF((3, 4, 6), "silu", "channel", dim)
    with pytest.raises(RuntimeError, match=r"takes inputs with 3 channels in dimension 1, not of size \(2, 6, 4, 6\)"):
        LEAF((3, 4, 6), "silu", "channel")(torch.randn(2, 6, 4, 6))
    assert repr(LEAF((5, 8), "tanh", "channel", -1)) == (
        "LEAF(shape=(5, 8), form='tanh', sharing='channel', channel_dim=-1)"
    )
    assert repr(LEAF((5, 8), "tanh", "shared")) == "LEAF(shape=(5, 8), form='tanh', sharing='layer')"


@pytest.mark.parametrize("form", BASE_FUNCTIONS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_affine(form, channels_last):
    layer = ACTIVATIONS[f"affine-{form}"].build((3, 4, 6))
    u = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    if channels_last:
        u = u.contiguous(memory_format=torch.channels_last)
    assert torch.equal(layer(u), BASE_FUNCTIONS[form]()(u)) and layer(u).stride() == u.stride()
    weights = torch.randn(5, 3, 2, 3, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        layer.scale += 0.5
        layer.shift += torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    (torch.nn.functional.max_pool2d(layer(u), 2) * weights).sum().backward()
    scale, shift = (p.detach().double().requires_grad_() for p in (layer.scale, layer.shift))
    y = torch.nn.functional.max_pool2d(scale * BASE_FUNCTIONS[form]()(u.double()) + shift, 2)
    (y * weights).sum().backward()
    torch.testing.assert_close(layer.scale.grad.double(), scale.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.shift.grad.double(), shift.grad, rtol=1e-4, atol=1e-5)


def test_registry_names_what_it_builds():
    assert list(ACTIVATIONS) == [
        "relu", "silu", "tanh", "sigmoid",
        "ahaf-relu", "ahaf-silu", "leaf-relu", "leaf-silu", "leaf-tanh", "leaf-sigmoid",
        "affine-relu", "affine-silu", "affine-tanh", "affine-sigmoid",
        "channel-ahaf-relu", "channel-ahaf-silu",
        "channel-leaf-relu", "channel-leaf-silu", "channel-leaf-tanh", "channel-leaf-sigmoid",
        "gelu", "prelu", "swish", "rational", "hardtanh", "hardsigmoid",
        *(f"ahaf-{form}@ffn" for form in ("relu", "silu")),
        *(f"leaf-{form}@ffn" for form in ("relu", "silu", "tanh", "sigmoid")),
        *(f"fneuron-{form}@ffn" for form in ("tanh", "sigmoid", "hardtanh", "hardsigmoid")),
        "frozen_p2_p4-leaf-tanh", "frozen_p2-leaf-tanh",
    ]  # fmt: skip
    for kind in ACTIVATIONS.values():
        layer = kind.build((4,))
        assert kind.adaptive == bool(list(layer.parameters()))
        assert set(kind.slow_parameters) <= {name for name, _ in layer.named_parameters()}
