"""The fast kernels of AHAF and LEAF against float64, torch's pooling, and themselves in any number of threads."""

import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn.functional import max_pool2d
from torch.utils._python_dispatch import TorchDispatchMode

from leaf import AHAF, LEAF
from leaf.activations import Adaptive
from leaf.kernels import kernel_for
from leaf.kernels.operands import Operands

FAMILIES = [AHAF, LEAF]
# Channels and pixels that fill no vector evenly, rows that pooling leaves out, several blocks, a single pixel.
SHAPES = [(3, 4, 5), (20, 8, 8), (7, 13, 13), (40, 30, 32), (5, 1, 1), (1, 28, 28)]


def layer_of(family: type[Adaptive], shape: tuple[int, ...], form: str = "silu", **sharing: Any) -> Adaptive:
    layer = family(shape, form, **sharing)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return layer


def formula(layer: Adaptive, u: torch.Tensor, p: list[torch.Tensor]) -> torch.Tensor:
    if isinstance(layer, AHAF):
        return p[0] * u * torch.sigmoid(p[1] * u)
    return (p[0] * u + p[1]) * torch.sigmoid(p[2] * u) + p[3]


def gradients(layer: Adaptive, u: torch.Tensor, pooled: bool = False) -> list[torch.Tensor]:
    """The output, and the gradients of the input and all parameters for a loss with fixed random weights."""
    u = u.detach().clone().requires_grad_()
    layer.zero_grad()
    y = layer(u, pooled)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y.backward(weights.to(y))
    return [y.detach(), u.grad, *(parameter.grad for parameter in layer.parameters())]


def true_gradients(layer: Adaptive, u: torch.Tensor, pooled: bool = False) -> list[torch.Tensor]:
    """The same from the formula in float64, by autograd."""
    u = u.detach().double().requires_grad_()
    parameters = [parameter.detach().double().requires_grad_() for parameter in layer.parameters()]
    y = formula(layer, u, parameters)
    y = max_pool2d(y, 2) if pooled else y
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y.backward(weights)
    return [y.detach(), u.grad, *(parameter.grad for parameter in parameters)]


def inputs(shape: tuple[int, ...], batch: int = 9, channels_last: bool = False) -> torch.Tensor:
    u = 2 * torch.randn(batch, *shape, generator=torch.Generator().manual_seed(2))
    return u.contiguous(memory_format=torch.channels_last) if channels_last else u


def test_the_fast_kernel_is_available_and_used():
    assert kernel_for(torch.device("cpu")) == "numba"
    assert kernel_for(torch.device("cpu"), torch.float64) == "reference"
    layer, u = LEAF((4,), "silu"), torch.randn(2, 4)
    assert layer(u).grad_fn.name() == "FusedGatedLineBackward"
    layer.reference = True
    assert layer(u).grad_fn.name() != "FusedGatedLineBackward"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [*SHAPES, (7,), (512,), (5000,)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_against_float64(family, shape, channels_last):
    layer, u = layer_of(family, shape), inputs(shape, channels_last=channels_last and len(shape) == 3)
    for ours, true in zip(gradients(layer, u), true_gradients(layer, u), strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=2e-5, atol=2e-5)


SHARED = [{"sharing": "channel"}, {"sharing": "channel", "channel_dim": -1}, {"sharing": "layer"}]


@pytest.mark.slow  # compiles, in a new checkout
@pytest.mark.parametrize("sharing", SHARED, ids=str)
@pytest.mark.parametrize(("shape", "pooled"), [((20, 8, 8), False), ((20, 8, 8), True), ((9, 40), False)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_shared_parameters_against_float64(sharing, shape, pooled, channels_last):
    """In any number of threads, by the fast kernel and by the reference."""
    layer, u = layer_of(LEAF, shape, **sharing), inputs(shape, 33, channels_last and len(shape) == 3)
    assert layer(u).grad_fn.name() == "FusedGatedLineBackward"
    found, true = gradients(layer, u, pooled), true_gradients(layer, u, pooled)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        in_threads = gradients(layer, u, pooled)
    finally:
        torch.set_num_threads(before)
    layer.reference = True
    for ours, threaded, plain, exact in zip(found, in_threads, gradients(layer, u, pooled), true, strict=True):
        assert torch.equal(ours, threaded)
        for result in (ours, plain):
            torch.testing.assert_close(result.double(), exact, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if min(shape[1:]) > 1], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_pooled_against_float64(family, shape, channels_last):
    layer, u = layer_of(family, shape), inputs(shape, channels_last=channels_last)
    for ours, true in zip(gradients(layer, u, pooled=True), true_gradients(layer, u, pooled=True), strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=2e-5, atol=2e-5)


def test_sigmoid_is_exact_to_a_few_units_in_the_last_place():
    """LEAF as sigmoid is only the gate; from its underflow in float32 to 1."""
    u = torch.linspace(-87, 30, 1_000_001)[:, None]
    y = LEAF((1,), "sigmoid")(u).double()
    true = torch.sigmoid(u.double())
    assert ((y - true).abs() / true).max() < 3e-7


@pytest.mark.parametrize("seed", range(5))
def test_pooling_chooses_as_torch_does(seed):
    """The first of equal values, such as the zeros of a ReLU, and NaN before all others."""
    u = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(seed)).round()
    u[0, :, 0, 0], u[0, :, 3, 3] = math.nan, math.nan
    u = u.contiguous(memory_format=torch.channels_last)
    layer = LEAF((8, 6, 6), "relu")
    y, _, *_, grad_p4 = gradients(layer, u, pooled=True)
    unpooled = layer(u).detach().requires_grad_()
    expected = max_pool2d(unpooled, 2)
    assert torch.equal(y.nan_to_num(99.0), expected.detach().nan_to_num(99.0)) and y[0, :, 0, 0].isnan().all()
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected.backward(weights.float())
    assert torch.equal(grad_p4, unpooled.grad[0])  # the gradient by p4 is that of the output, and this sample's alone


@pytest.mark.slow  # compiles, in a new checkout
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("shape", "pooled"), [((40, 30, 32), True), ((40, 30, 32), False), ((5000,), False)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(family, shape, pooled):
    layer, u = layer_of(family, shape), inputs(shape, channels_last=len(shape) == 3)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 1, 2):
            torch.set_num_threads(threads)
            found.append(gradients(layer, u, pooled))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.slow  # compiles, in a new checkout
@pytest.mark.parametrize("needed", list(itertools.product([False, True], repeat=5)))
@pytest.mark.parametrize("pooled", [False, True])
def test_computes_what_is_needed_and_no_more(needed, pooled):
    layer, u = layer_of(LEAF, (6, 4, 4)), inputs((6, 4, 4), channels_last=True)
    everything = gradients(layer, u, pooled)[1:]
    leaves = [u.clone(), *layer.parameters()]
    layer.zero_grad()
    for tensor, need in zip(leaves, needed, strict=True):
        tensor.requires_grad_(need)
    y = layer(leaves[0], pooled)
    if any(needed):
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).float())
    for tensor, need, expected in zip(leaves, needed, everything, strict=True):
        if need:
            torch.testing.assert_close(tensor.grad, expected)
        else:
            assert tensor.grad is None


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_have_the_memory_format_of_the_inputs(family):
    layer = layer_of(family, (4, 5, 6))
    plain = {name: parameter.clone() for name, parameter in layer.state_dict().items()}
    u = inputs((4, 5, 6), channels_last=True)
    before = gradients(layer, u)
    layer.to(memory_format=torch.channels_last)
    for name, parameter in layer.named_parameters():
        assert parameter.shape == (4, 5, 6) and parameter.stride() == (1, 24, 4)
        assert torch.equal(parameter, plain[name])
    after = gradients(layer, u)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.grad.stride() == parameter.stride() for parameter in layer.parameters())
    fresh = family((4, 5, 6), "silu")
    fresh.load_state_dict(layer.state_dict())
    assert all(parameter.is_contiguous() for parameter in fresh.parameters()) and torch.equal(fresh(u), layer(u))


def test_inputs_that_are_not_dense():
    layer, u = layer_of(LEAF, (4, 5, 6)), inputs((4, 5, 12))
    torch.testing.assert_close(layer(u[..., ::2]), layer(u[..., ::2].contiguous()), rtol=0, atol=0)
    torch.testing.assert_close(layer(u[:1, ..., :6].expand(3, 4, 5, 6)), layer(u[:1, ..., :6]).expand(3, 4, 5, 6))


@pytest.mark.parametrize("pooled", [False, True])
def test_a_derivative_of_the_derivative(pooled):
    layer, u = layer_of(LEAF, (3, 4, 4)), inputs((3, 4, 4), channels_last=True).requires_grad_()

    def penalty(u: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        (grad_u,) = torch.autograd.grad(y.square().sum(), u, create_graph=True)
        return torch.autograd.grad(grad_u.square().sum(), u)[0]

    ours = penalty(u, layer(u, pooled))
    true_u = u.detach().double().requires_grad_()
    y = formula(layer, true_u, [parameter.double() for parameter in layer.parameters()])
    true = penalty(true_u, max_pool2d(y, 2) if pooled else y)
    torch.testing.assert_close(ours.double(), true, rtol=1e-4, atol=1e-4)


def test_a_derivative_of_the_derivative_of_one_module_used_twice():
    layer = layer_of(LEAF, (4,))

    def second(u: torch.Tensor, use: Any) -> list[torch.Tensor]:
        leaves = [u, *layer.parameters()]
        first = torch.autograd.grad(use(use(u)).square().sum(), leaves, create_graph=True)
        return [*first, *torch.autograd.grad(first[0].square().sum(), leaves)]

    u = inputs((4,)).requires_grad_()
    ours = second(u, layer)
    layer.reference = True
    for found, true in zip(ours, second(u, layer), strict=True):
        torch.testing.assert_close(found, true, rtol=1e-4, atol=1e-4)


def test_a_traced_network_computes_the_same(tmp_path):
    network, u = torch.nn.Sequential(torch.nn.Linear(3, 4), layer_of(LEAF, (4,))), torch.randn(2, 3)
    torch.jit.trace(network, u).save(tmp_path / "traced.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "traced.pt")(u), network(u), rtol=1e-5, atol=1e-5)


def run(code: str, **environment: str) -> str:
    import os

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_without_numba_the_reference_runs():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from leaf import LEAF; from leaf.kernels import kernel_for\n"
        "print(kernel_for(torch.device('cpu')), LEAF((4,), 'sigmoid')(torch.zeros(2, 4)).unique().item())"
    )
    assert run(code).split() == ["reference", "0.5"]


def test_importing_leaf_imports_no_compiler():
    code = "import sys, leaf; print([name for name in ('numba', 'triton', 'llvmlite') if name in sys.modules])"
    found = run(code).strip()
    assert "numba" not in found and "llvmlite" not in found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_working_triton_a_gpu_uses_the_formula():
    """Triton finds no driver here; a missing C compiler or cache directory has the same effect."""
    assert kernel_for(torch.device("cuda")) == "reference"


@pytest.mark.slow
def test_the_gpu_kernel_in_tritons_interpreter():
    pytest.importorskip("triton")
    code = """
import itertools, math
import torch
from torch.nn.functional import max_pool2d
from leaf.kernels import gpu
from leaf.kernels.operands import Operands
torch.manual_seed(0)
gpu.PROGRAMS, gpu.BLOCK = 4, 64  # several blocks; a program walks several samples, and the last one fewer

def in_order(tensor):
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor

def check(ours, true):
    assert (ours is None) == (true is None)
    if ours is not None:
        torch.testing.assert_close(ours.double(), true.detach(), rtol=1e-4, atol=1e-4)

for batch, shape, channels_last, pooled in [
    (5, (300,), False, False), (9, (2,), False, False), (9, (3, 5, 7), True, False),
    (5, (3, 5, 7), True, True), (2, (70, 2, 3), True, True), (9, (1, 4, 2), True, True),
]:
    for with_offsets in (True, False):
        u = in_order(torch.randn(batch, *shape))
        parameters = [in_order(torch.randn(1, *shape))[0] for _ in range(4)]
        if not with_offsets:
            parameters[1] = parameters[3] = None
        operands = Operands(u, tuple(parameters))
        y, window = gpu.pooled_forward(operands) if pooled else (gpu.forward(operands), None)
        exact = [None if p is None else p.double().requires_grad_() for p in parameters]
        exact_u = u.double().requires_grad_()
        p1, p2, p3, p4 = (0 if p is None else p for p in exact)
        exact_y = (p1 * exact_u + p2) * torch.sigmoid(p3 * exact_u) + p4
        exact_y = max_pool2d(exact_y, 2) if pooled else exact_y
        check(y, exact_y)
        grad_y = in_order(torch.randn(y.shape))
        exact_y.backward(grad_y.double())
        true = [exact_u.grad, *(None if p is None else p.grad for p in exact)]
        for left_out in (None, 0, 3):
            needed = [gradient is not None and index != left_out for index, gradient in enumerate(true)]
            found = gpu.backward(Operands(u, tuple(parameters), grad_y, window), needed)
            for ours, gradient, need in zip(found, true, needed, strict=True):
                check(ours, gradient if need else None)

u = torch.randn(1, 8, 6, 6).round()  # of equal elements the first, NaN before all others
u[0, :, 0, 1], u[0, :, 3, 3] = math.nan, math.nan
u, channels_last = u.contiguous(memory_format=torch.channels_last), True
ones = [in_order(torch.ones(1, 8, 6, 6))[0] for _ in range(2)]
steep = in_order(torch.full((1, 8, 6, 6), 2.0**16))[0]
operands = Operands(u, (ones[0], None, steep, None))
unpooled = gpu.forward(operands)
y, window = gpu.pooled_forward(operands)
expected, index = max_pool2d(unpooled, 2, return_indices=True)
assert torch.equal(y.nan_to_num(99), expected.nan_to_num(99)) and expected.isnan().sum() == 16
assert torch.equal(window, index // 6 % 2 * 2 + index % 2)
print("equal")
"""
    assert run(code, TRITON_INTERPRET="1").strip() == "equal"


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("name", ["_forward_part", "_backward_part"])
def test_the_gpu_kernel_compiles_without_a_gpu(name, pooled):
    """For an H100, with threads that exchange nothing in shared memory."""
    triton = pytest.importorskip("triton")
    from leaf.kernels import gpu

    kernel = getattr(gpu, name)
    integers = kernel.arg_names[kernel.arg_names.index("batch") - ("part" in kernel.arg_names) :]
    signature = {argument: "i32" if argument in integers else "*fp32" for argument in kernel.arg_names}
    signature |= {"window": "*u8" if pooled else "constexpr", "samples": "constexpr", "BLOCK": "constexpr"}
    constants = {"samples": 16, "BLOCK": 128} | ({} if pooled else {"window": None})
    source = triton.compiler.ASTSource(kernel, signature, constants)
    compiled = triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"] and not compiled.metadata.shared


def test_launches_of_a_gpu_layer(monkeypatch):
    """One kernel forward and one backward, max-pooling included, and one that finishes all gradients' sums."""
    pytest.importorskip("triton")
    from leaf.kernels import gpu

    launched = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            kernel = not function.is_view and "empty" not in str(function)
            launched.extend([str(function)] if kernel else [])
            return result

    monkeypatch.setattr(gpu, "_launch", lambda kernel, *_: launched.append(kernel.fn.__name__))
    parameters = [p.detach() for p in LEAF((6, 5, 5), "silu").to(memory_format=torch.channels_last).parameters()]
    u = inputs((6, 5, 5), channels_last=True)
    operands = Operands(u, parameters)
    with Count():
        y, window = gpu.pooled_forward(operands)
    operands = Operands(u, parameters, y, window)
    with Count():
        gpu.backward(operands, [True] * 5)
    assert launched == ["_forward_part", "_backward_part", "aten.sum.dim_IntList"]


def test_pooled_outputs_are_as_their_inputs_whatever_torch_makes_by_default():
    layer, u = layer_of(LEAF, (3, 4, 4)), inputs((3, 4, 4), channels_last=True)
    expected = layer(u, pooled=True)
    torch.set_default_dtype(torch.float64)
    try:
        found = layer(u, pooled=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype is torch.float32 and torch.equal(found, expected)


def test_inputs_that_the_fast_kernel_does_not_support_use_the_reference():
    """The kernel uses raw addresses, so that other dtypes, shapes or devices of parameters must not reach it."""
    layer, u = layer_of(LEAF, (6,)), inputs((6,))
    expected = layer(u)
    torch.testing.assert_close(layer.to(torch.bfloat16)(u), expected, rtol=0.05, atol=0.05)
    mixed = layer_of(LEAF, (6,))
    mixed.p3.data = mixed.p3.data.double()
    torch.testing.assert_close(mixed(u).float(), expected)
    with pytest.raises(RuntimeError, match="size"):
        layer_of(LEAF, (6,))(inputs((12,)))
    with pytest.raises(RuntimeError, match=r"device|meta"):
        layer_of(LEAF, (6,)).to("meta")(u).sum().item()
    with pytest.raises(RuntimeError, match="too small"):
        layer_of(LEAF, (3, 1, 4))(inputs((3, 1, 4), channels_last=True), pooled=True)
