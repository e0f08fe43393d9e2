"""The library as an import: without the experiment, and with public errors."""

import subprocess
import sys

import pytest

import leaf

pytestmark = pytest.mark.slow


def test_import_leaf_imports_only_the_library():
    code = (
        "import sys, leaf\n"
        "above = ('leaf.experiment', 'leaf.analysis', 'leaf.cli', 'yaml', 'pandas', 'jsonschema')\n"
        "print([m for m in sys.modules if m.startswith(above)])\n"
        "print(leaf.build_network('lenet5', 'cifar10', 'leaf-tanh').title)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["[]", "LeNet-5"]


def test_every_public_name_exists():
    assert [name for name in leaf.__all__ if not hasattr(leaf, name)] == []
    with pytest.raises(AttributeError, match="'leaf' has no attribute 'build_netwrok'"):
        _ = leaf.build_netwrok


def test_user_errors_are_value_errors():
    with pytest.raises(ValueError, match="unknown network 'lenet'") as error:
        leaf.build_network("lenet", "cifar10", "relu")
    assert type(error.value) is leaf.UserError


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_import_leaf_starts_no_threads():
    """A process that is forked from one with torch's threads hangs when it computes."""
    code = (
        "import os, torch\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "from leaf import *\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "0\n"
