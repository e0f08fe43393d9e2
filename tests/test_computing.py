"""Precisions: the settings of torch that each name changes, and their restoration."""

import subprocess
import sys

import pytest
import torch

from leaf import build_network
from leaf.experiment.computing import PRECISIONS, compute_in

SWITCHES = {
    "float32": (False, False),
    "tf32": (True, True),
    "tf32-convolutions": (True, False),
    "bfloat16": (False, False),
}
"""Whether convolutions and matrix products may use TF32."""


@pytest.fixture
def restored():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("before", SWITCHES)
@pytest.mark.parametrize("precision", SWITCHES)
def test_each_precision_sets_its_switches_whatever_was_set_before(restored, precision, before):
    assert set(SWITCHES) == set(PRECISIONS)
    network, device = build_network("lenet5", "fashion_mnist", "relu"), torch.device("cpu")
    for name in (before, precision):
        compute_in(name, network, device)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == SWITCHES[precision]


@pytest.mark.slow
def test_tf32_convolutions_is_torchs_default_and_so_the_published_codes(restored):
    code = "import torch; print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)"
    default = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert default == [str(switch) for switch in SWITCHES["tf32-convolutions"]]
