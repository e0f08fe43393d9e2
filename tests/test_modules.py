"""LEAF and AHAF behave as PyTorch's own modules do: construction, inputs, dtypes, devices, copies, derivatives."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import skip_init

from leaf import ACTIVATIONS, AHAF, LEAF
from leaf.activations import Adaptive
from leaf.peers import Swish

SHAPE = (3, 4, 6)
SHARING = {
    "element": {},
    "channel": {"sharing": "channel"},
    "last channel": {"sharing": "channel", "channel_dim": -1},
    "layer": {"sharing": "layer"},
}
every_module = pytest.mark.parametrize("family", [LEAF, AHAF])
every_sharing = pytest.mark.parametrize("options", SHARING.values(), ids=SHARING)
LEARNABLE = [name for name, kind in ACTIVATIONS.items() if kind.layer and not kind.fully_connected_only]


def random(*shape: int, seed: int = 1, **options) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **options)


def moved(layer: Adaptive) -> Adaptive:
    """The layer with other than initial parameters."""
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter += 0.3 * random(*parameter.shape, seed=seed).to(parameter)
    return layer


def reference(layer: Adaptive, u: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    """The paper's formula, for parameters that broadcast to ``u``."""
    if isinstance(layer, AHAF):
        beta, gamma = parameters
        return beta * u * torch.sigmoid(gamma * u)
    p1, p2, p3, p4 = parameters
    return (p1 * u + p2) * torch.sigmoid(p3 * u) + p4


def check(layer: Adaptive, u: torch.Tensor, parameter_shape: tuple[int, ...], tolerance: float = 1e-5) -> None:
    """Compare output and gradients with the formula in float64, with parameters viewed as ``parameter_shape``."""
    u = u.detach().requires_grad_()
    weights = random(*u.shape, seed=9)
    layer.zero_grad()
    y = layer(u)
    (y * weights.to(y)).sum().backward()
    true_u = u.detach().double().requires_grad_()
    true = [parameter.detach().double().requires_grad_() for parameter in layer.parameters()]
    true_y = reference(layer, true_u, [parameter.reshape(parameter_shape) for parameter in true])
    (true_y * weights.double()).sum().backward()
    assert y.shape == u.shape and y.dtype == u.dtype
    torch.testing.assert_close(y.double(), true_y, rtol=tolerance, atol=tolerance)
    for ours, expected in zip([u, *layer.parameters()], [true_u, *true], strict=True):
        torch.testing.assert_close(ours.grad.double(), expected.grad, rtol=tolerance, atol=10 * tolerance)


# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNABLE)
def test_skip_init_meta_and_reset(name):
    kind = ACTIVATIONS[name]
    usual = kind.build(SHAPE)
    arguments = (SHAPE, kind.form, usual.sharing)
    skipped = skip_init(kind.layer, *arguments)
    meta = kind.layer(*arguments, device="meta")
    assert meta(torch.empty(2, *SHAPE, device="meta")).shape == (2, *SHAPE)
    moved_away = nn.Sequential(moved(kind.build(SHAPE)), nn.Linear(6, 6))
    moved_away.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
    for layer in (skipped, meta.to_empty(device="cpu")):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(7)
        layer.reset_parameters()
    for layer, frozen_alike in ((skipped, False), (meta, False), (moved_away[0], True)):
        assert list(layer.state_dict()) == list(usual.state_dict())
        for parameter, expected in zip(layer.parameters(), usual.parameters(), strict=True):
            assert type(parameter) is nn.Parameter and torch.equal(parameter, expected)
            assert parameter.requires_grad == (expected.requires_grad if frozen_alike else True)


@every_module
@every_sharing
def test_factory_arguments(family, options):
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        layer = family(SHAPE, "relu", **options, device="cpu", dtype=dtype)
        assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
        assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert {parameter.device.type for parameter in family(SHAPE, "silu", **options, device="meta").parameters()} == {
        "meta"
    }


@pytest.mark.parametrize("shape", [5, (5,), [5], torch.Size([5]), np.int64(5), (np.int64(5),)], ids=repr)
def test_accepted_shapes(shape):
    layer = LEAF(shape, "tanh")
    assert layer.shape == (5,) and layer.p1.shape == (5,) and "shape=(5,)" in repr(layer)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((3, 0), "tanh"), ValueError, r"LEAF: shape must have at least one size, all positive, not \(3, 0\)"),
        (((-1,), "tanh"), ValueError, r"not \(-1,\)"),
        ((0, "tanh"), ValueError, "not 0"),
        (((), "tanh"), ValueError, r"not \(\)"),
        ((True, "tanh"), TypeError, "shape must consist of integers, not True"),
        (((3, True), "tanh"), TypeError, r"shape must consist of integers, not \(3, True\)"),
        (((3.0,), "tanh"), TypeError, r"not \(3.0,\)"),
        ((3.0, "tanh"), TypeError, r"shape must be that of one sample's input, such as \(500,\), not 3.0"),
        (("35", "tanh"), TypeError, "not '35'"),
        ((None, "tanh"), TypeError, "not None"),
        (((3,), "gelu"), ValueError, "LEAF has no form 'gelu'; its forms are: relu, silu, tanh, sigmoid"),
        (((3,), None), TypeError, "LEAF: form must be of type str, not None"),
        (((3,), ["tanh"]), TypeError, "form must be of type str"),
        (((3,), "tanh", "row"), ValueError, "LEAF has no sharing 'row'"),
        (((3,), "tanh", 1), TypeError, "sharing must be of type str, not 1"),
        (((3,), "tanh", "channel", 2), ValueError, "no dimension 2 for channels"),
        (((3,), "tanh", "channel", "1"), TypeError, "channel_dim must be of type int, not '1'"),
        (((3,), "tanh", "channel", True), TypeError, "channel_dim must be of type int, not True"),
        (((3,), "tanh", "element", 1, "cpu", torch.int64), TypeError, "floating point, not torch.int64"),
        (((3,), "tanh", "element", 1, "cpu", torch.complex64), TypeError, "floating point, not torch.complex64"),
    ],
)
def test_rejected_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LEAF(*arguments)


# --- inputs -----------------------------------------------------------------------------------------------------------


@every_module
@pytest.mark.parametrize("leading", [(), (1,), (5,), (2, 5), (2, 1, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_leading_dimensions_per_element(family, leading, dtype):
    for shape in ((8,), SHAPE):
        layer = moved(family(shape, "silu", dtype=dtype))
        u = random(*leading, *shape).to(dtype)
        check(layer, u, shape)
        assert torch.equal(layer(u), layer(u.reshape(-1, *shape)).reshape(u.shape))


CHANNELS = [  # sample's shape, channel dimension, input, parameters as they broadcast to it
    ((8,), -1, (2, 5, 8), (8,)),
    ((8,), -1, (8,), (8,)),
    ((8,), 1, (3, 8), (8,)),
    ((8,), 1, (3, 8, 5), (8, 1)),
    ((8,), 1, (3, 8, 5, 4), (8, 1, 1)),
    (SHAPE, 1, (2, 3, 7, 5), (3, 1, 1)),
    (SHAPE, 1, (2, 3, 7), (3, 1)),
    (SHAPE, -1, (2, 7, 5, 6), (6,)),
    (SHAPE, -1, (2, 7, 6), (6,)),
    (SHAPE, -3, (3, 4, 6), (3, 1, 1)),
    (SHAPE, -3, (2, 5, 3, 4, 6), (3, 1, 1)),
]


@every_module
@pytest.mark.parametrize(("shape", "dim", "size", "parameters"), CHANNELS)
def test_the_channel_is_a_dimension_of_the_input(family, shape, dim, size, parameters):
    check(moved(family(shape, "silu", "channel", dim)), random(*size), parameters)


@every_module
@pytest.mark.parametrize("size", [(), (7,), (2, 7), (2, 3, 5), (2, 3, 9, 4), (2, 3, 4, 5, 6)])
def test_a_layer_accepts_any_shape(family, size):
    check(moved(family(SHAPE, "silu", "layer")), random(*size), ())


@pytest.mark.parametrize(
    ("layer", "size", "message"),
    [
        (LEAF((8,), "tanh"), (2, 8, 5), r"LEAF of shape \(8,\) takes inputs \(\*, 8\), not of size \(2, 8, 5\)"),
        (LEAF((8,), "tanh"), (), r"takes inputs \(\*, 8\), not of size \(\)"),
        (AHAF((4, 6), "silu"), (6,), r"AHAF of shape \(4, 6\) takes inputs \(\*, 4, 6\), not of size \(6,\)"),
        (LEAF((8,), "tanh", "channel"), (2, 5, 8), r"with 8 channels in dimension 1, not of size \(2, 5, 8\)"),
        (LEAF((8,), "tanh", "channel"), (8,), r"with 8 channels in dimension 1, not of size \(8,\)"),
        (
            LEAF((1, 5, 5), "tanh", "channel"),
            (2, 3, 5, 5),
            r"with 1 channels in dimension 1, not of size \(2, 3, 5, 5\)",
        ),
    ],
)
def test_rejected_sizes(layer, size, message):
    with pytest.raises(RuntimeError, match=message):
        layer(torch.zeros(size))


def test_pooling_is_for_images():
    for layer, size in ((LEAF((8,), "tanh"), (2, 3, 4, 8)), (LEAF(SHAPE, "tanh"), SHAPE), (LEAF((8,), "tanh"), (2, 8))):
        with pytest.raises(RuntimeError, match=r"takes inputs \(N, C, H, W\) with pooled=True, not"):
            layer(torch.zeros(size), pooled=True)


@pytest.mark.filterwarnings("ignore:.*prototype stage", "ignore:.*beta state")
@every_sharing
@pytest.mark.parametrize("family", [LEAF, AHAF, Swish, ACTIVATIONS["prelu"].layer])
def test_rejected_inputs(family, options):
    layer = family((4,), "relu" if "relu" in family.forms else "silu", **options)
    name, u = family.__name__, torch.ones(2, 4)
    for wrong, what in [
        (torch.ones(2, 4, dtype=torch.int64), "a tensor of torch.int64"),
        (u.bool(), "a tensor of torch.bool"),
        (u.to(torch.complex64), "a tensor of torch.complex64"),
        (u.to_sparse(), "a tensor of torch.sparse_coo"),
        (u.to_sparse_csr(), "a tensor of torch.sparse_csr"),
        (torch.nested.nested_tensor([u, u]), "a nested tensor"),
        (torch.nested.nested_tensor([u, u], layout=torch.jagged), "a nested tensor"),
        ([1.0, 2.0, 3.0, 4.0], "list"),
        (u.numpy(), "ndarray"),
    ]:
        with pytest.raises(TypeError, match=f"^{name} takes dense floating-point tensors, not {what}$"):
            layer(wrong)


# --- what torch checks of its own modules -----------------------------------------------------------------------------

PARAMETER_SHAPES = {"element": SHAPE, "channel": (3, 1, 1), "last channel": (1, 1, 6), "layer": (1, 1, 1)}


@every_module
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("form", ["relu", "silu"])
def test_forward_and_gradients(family, sharing, form):
    layer = family(SHAPE, form, **SHARING[sharing], dtype=torch.float64)
    assert {tuple(parameter.shape) for parameter in layer.parameters()} == {PARAMETER_SHAPES[sharing]}
    check(layer, random(5, *SHAPE).double(), PARAMETER_SHAPES[sharing], 1e-9)
    check(moved(layer.float()), 0.01 * random(5, *SHAPE), PARAMETER_SHAPES[sharing], 1e-2 if form == "relu" else 1e-5)


@every_module
@every_sharing
def test_memory_formats_and_strides(family, options):
    layer = moved(family(SHAPE, "silu", **options))
    u = random(5, *SHAPE)
    expected = layer(u)
    last = u.contiguous(memory_format=torch.channels_last)
    strided = [
        last,
        torch.stack([u, u], -1)[..., 0],
        u.transpose(0, 3).contiguous().transpose(0, 3),
        torch.cat([u, u])[::2].copy_(u),
        u.flip(0).flip(0),
    ]
    for other in strided:
        assert torch.equal(other, u)
        torch.testing.assert_close(layer(other), expected)
    repeated = u[:1].expand(5, -1, -1, -1)
    torch.testing.assert_close(layer(repeated), layer(repeated.contiguous()))
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    pooled = nn.functional.max_pool2d(expected, 2)
    torch.testing.assert_close(layer(u, pooled=True), pooled)
    torch.testing.assert_close(layer(last, pooled=True), pooled)
    through = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    torch.testing.assert_close(through(last), expected)
    assert repr(through) == repr(layer)


@every_module
@every_sharing
def test_to_other_dtypes_and_back(family, options):
    u = random(5, *SHAPE)
    for form in ("relu", "silu"):
        layer = family(SHAPE, form, **options)
        expected = layer(u)
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            other = copy.deepcopy(layer).to(dtype)
            y = other(u.to(dtype))
            assert y.dtype is dtype and y.isfinite().all()
            torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)
            back = other.float()
            assert all(parameter.isfinite().all() for parameter in back.parameters())
            torch.testing.assert_close(back(u), expected, rtol=1e-4, atol=1e-4)


@every_module
@every_sharing
def test_copies_and_state(family, options):
    layer = moved(family(SHAPE, "silu", **options))
    u = random(5, *SHAPE)
    loaded = family(SHAPE, "relu" if family is AHAF else "tanh", **options)
    assert str(loaded.load_state_dict(layer.state_dict())) == "<All keys matched successfully>"
    evaluated = eval(repr(layer), {"LEAF": LEAF, "AHAF": AHAF})
    assert repr(evaluated) == repr(layer)
    evaluated.load_state_dict(layer.state_dict())
    for other in (loaded, evaluated, copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(u), layer(u))
    assert torch.equal(layer.eval()(u), layer.train()(u)) and list(layer.buffers()) == []
    wrong = family((9, 9, 9), "silu", **options)
    if options.get("sharing") != "layer":
        with pytest.raises(RuntimeError, match="size mismatch"):
            wrong.load_state_dict(layer.state_dict())


@every_module
@every_sharing
def test_input_and_state_stay_as_they_are(family, options):
    layer, u = moved(family(SHAPE, "silu", **options)), random(5, *SHAPE)
    before, state = u.clone(), copy.deepcopy(layer.state_dict())
    layer(u).sum().backward()
    assert torch.equal(u, before) and all(torch.equal(state[name], p) for name, p in layer.named_parameters())


@every_module
@every_sharing
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_batches(family, options, dtype):
    layer = family(SHAPE, "silu", **options, dtype=dtype)
    u = torch.empty(0, *SHAPE, dtype=dtype, requires_grad=True)
    layer(u).sum().backward()
    assert layer(u).shape == u.shape == u.grad.shape
    assert all((parameter.grad == 0).all() for parameter in layer.parameters())
    if options.get("sharing") != "channel" or options.get("channel_dim") == -1:
        assert layer(torch.empty(2, 0, *SHAPE, dtype=dtype)).shape == (2, 0, *SHAPE)


@every_module
@every_sharing
def test_derivatives(family, options):
    layer = moved(family((2, 3), "silu", **options, dtype=torch.float64))
    u = random(3, 2, 3).double().requires_grad_()

    def call(u, *parameters):
        return torch.func.functional_call(layer, dict(zip(layer.parameter_names, parameters, strict=True)), (u,))

    inputs = (u, *layer.parameters())
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_one_sample_without_a_batch():
    """The channel dimension is that of batched samples, also if another dimension has the same size."""
    layer = LEAF((4, 6, 4), "tanh", "channel", -1, dtype=torch.float64)
    with torch.no_grad():
        layer.p1.add_(torch.linspace(0, 1, 4, dtype=torch.float64).view_as(layer.p1))
    u = torch.randn(4, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(u), layer(u[None])[0], rtol=0, atol=0)
