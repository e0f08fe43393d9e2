"""The fast kernel in forked and spawned processes and in Python threads, each in a process with a time limit."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")

PROGRAM = """
import multiprocessing, sys, threading
import torch
from leaf import LEAF

torch.set_num_threads(2)
layer = LEAF((1024,), "silu")
u = torch.linspace(-3, 3, 64 * 1024).view(64, 1024).requires_grad_()  # enough to start threads
weights = torch.linspace(-1, 1, 64 * 1024).view(64, 1024)
leaves = [u, *layer.parameters()]

def gradients():
    y = layer(u)
    assert y.grad_fn.name() == "FusedGatedLineBackward"
    return [y.detach(), *torch.autograd.grad(y, leaves, weights)]

def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
"""


def ends_well(code: str, *arguments: str, **environment: str) -> str:
    """Output of a program, which must terminate without an error."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM + code, *arguments],
        capture_output=True, text=True, timeout=240, env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, f"ended with {result.returncode}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


@needs_fork
def test_a_process_forked_after_the_kernel_ran_in_threads_computes_the_same():
    code = """
import os
expected = gradients()
child = os.fork()
if not child:
    found = gradients()
    torch.set_num_threads(1)  # torch's own threads do not survive the fork
    os._exit(0 if same(found, expected) else 3)
assert os.waitpid(child, 0)[1] == 0
assert same(gradients(), expected)
print("same")
"""
    assert ends_well(code) == "same"


@needs_fork
def test_a_process_forked_while_a_thread_compiles_can_compile(tmp_path):
    code = """
import os, time
from leaf.kernels import kernel_for
assert kernel_for(u.device) == "numba"
torch.autograd.grad(torch.nn.functional.silu(u), u, weights)  # imports what torch imports at first use: a fork during
# an import leaves that module's lock held in the child, whatever computes
thread = threading.Thread(target=gradients)
thread.start()
children = []
for _ in range(4):
    child = os.fork()
    if not child:
        gradients()
        os._exit(0)
    children.append(child)
    time.sleep(0.05)
thread.join()
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print("compiled")
"""
    assert ends_well(code, NUMBA_CACHE_DIR=str(tmp_path)) == "compiled"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_a_data_loader(method, tmp_path):
    if not hasattr(os, "fork") and method != "spawn":
        pytest.skip("processes are not forked here")
    program = tmp_path / "loader.py"
    code = """
class Through(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        with torch.no_grad():
            return layer(u.detach())

if __name__ == "__main__":
    expected = gradients()[0]
    loader = torch.utils.data.DataLoader(
        Through(), batch_size=None, num_workers=2, multiprocessing_context=sys.argv[1], timeout=200
    )
    assert all(torch.equal(y, expected) for y in loader)
    print("same")
"""
    program.write_text(PROGRAM + code)
    result = subprocess.run([sys.executable, program, method], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0 and result.stdout.strip() == "same", result.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_processes_train_shared_parameters(method, tmp_path):
    """Hogwild: both processes modify the same memory without a lock."""
    if not hasattr(os, "fork") and method == "fork":
        pytest.skip("processes are not forked here")
    program = tmp_path / "hogwild.py"
    code = """
def train(layer):
    torch.set_num_threads(1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        (layer(u) - 1).square().mean(0).sum().backward()
        optimizer.step()

if __name__ == "__main__":
    gradients()  # in threads, before the fork
    layer.share_memory()
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    context = torch.multiprocessing.get_context(sys.argv[1])
    processes = [context.Process(target=train, args=(layer,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    for parameter, old in zip(layer.parameters(), before):
        assert parameter.isfinite().all() and not torch.equal(parameter, old)
    print("trained")
"""
    program.write_text(PROGRAM + code)
    result = subprocess.run([sys.executable, program, method], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0 and result.stdout.strip() == "trained", result.stderr


@pytest.mark.parametrize("threading_layer", ["omp", "workqueue"])
def test_eight_python_threads_that_use_it_first_at_once(threading_layer, tmp_path):
    code = """
from concurrent.futures import ThreadPoolExecutor
barrier = threading.Barrier(8)

def first_use(_):
    torch.set_num_threads(2)
    barrier.wait()
    return [gradients() for _ in range(5)]

with ThreadPoolExecutor(8) as pool:
    found = [result for results in pool.map(first_use, range(8)) for result in results]
assert all(same(result, found[0]) for result in found)
print("same")
"""
    environment = {"NUMBA_THREADING_LAYER": threading_layer, "NUMBA_CACHE_DIR": str(tmp_path)}
    assert ends_well(code, **environment) == "same"


def test_on_macos_it_starts_no_threads():
    """Simulates macOS: numba loads no threading layer if the platform is named darwin."""
    code = """
import numba
sys.platform = "darwin"
for name in [name for name in sys.modules if name.startswith("leaf")]:
    del sys.modules[name]
from leaf import LEAF
layer = LEAF((1024,), "silu")
leaves = [u, *layer.parameters()]
gradients()
try:
    print(numba.threading_layer())
except ValueError:
    print("none")
"""
    assert ends_well(code) == "none"


def test_where_numba_cannot_store_what_it_compiles_the_reference_computes(tmp_path):
    code = """
import warnings
from pathlib import Path
from numba.core.caching import IndexDataCacheFile

def full(*_):
    raise OSError(28, "No space left on device")

IndexDataCacheFile.save = full
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    y = layer(u)
    grads = torch.autograd.grad(y, leaves, weights)
    layer(u)
layer.reference = True
assert torch.equal(y, layer(u)) and same(grads, torch.autograd.grad(layer(u), leaves, weights))
print([str(warning.message) for warning in caught])
"""
    printed = ends_well(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert printed.count("leaf computes with torch operations") == 1 and "No space left" in printed
