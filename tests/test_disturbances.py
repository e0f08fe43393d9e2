"""Disturbances of a layer between forward and backward give the correct gradient or one clear error.

Each disturbance runs in a separate process, where a wrong address may corrupt the heap or end the process.
"""

import contextlib
import itertools
import math
import multiprocessing

import pytest
import torch
from disturbances import CASES, DISTURBANCES, report
from test_kernels import FAMILIES
from torch.fx.experimental.proxy_tensor import make_fx

from leaf import AHAF

pytestmark = pytest.mark.slow


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "numba", "leaf.activations"])  # imported once


@pytest.mark.parametrize("name", DISTURBANCES)
def test_gives_the_gradient_or_an_error(name):
    outcomes, results = [], PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=report, args=(name, results[1]))
    process.start()
    results[1].close()
    with contextlib.suppress(EOFError):
        while results[0].poll(600):
            outcomes.append(results[0].recv())
    process.join(60)
    assert process.exitcode == 0, f"{outcomes}, then ended with {process.exitcode}"
    assert len(outcomes) == len(CASES) and all(line.endswith(": right") for line in outcomes), outcomes


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_traced_layer_computes_from_its_inputs(family, pre_dispatch, pooled):
    layer, u, other = family((3, 4, 4), "silu"), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    traced = make_fx(lambda u: layer(u, pooled), pre_dispatch=pre_dispatch)(u)
    torch.testing.assert_close(traced(other), layer(other, pooled))


@pytest.mark.parametrize("family", FAMILIES)
def test_relu_survives_float16(family):
    """2^16, the slope in its sigmoid, overflows in float16."""
    layer = family((5,), "relu")
    made_in_half = family((5,), "relu", dtype=torch.float16)
    for module, dtype in itertools.product((layer, made_in_half), (torch.float16, torch.float32)):
        module.to(dtype).zero_grad()
        u = torch.tensor([[-2.0, -0.5, 0.0, 0.5, 2.0]], requires_grad=True)
        y = module(u)
        torch.testing.assert_close(y.detach().float(), torch.relu(u.detach()))
        y.sum().backward()
        assert all(tensor.grad.isfinite().all() for tensor in (u, *module.parameters()))
        assert all(parameter.isfinite().all() for parameter in module.parameters())
    overflown = family((5,), "relu").half()
    with torch.no_grad():
        (overflown.gamma if family is AHAF else overflown.p3).fill_(math.inf)
    assert torch.equal(overflown.float()(torch.zeros(1, 5)), torch.zeros(1, 5))
