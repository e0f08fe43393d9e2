"""What is known by name: without torch, and the same as the classes say."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT

import leaf
from leaf.activations import Adaptive, check
from leaf.names import ACTIVATIONS, NETWORKS, KnownNetwork
from leaf.networks import Network
from leaf.networks import check as check_network

HEAVY = ("torch", "numpy", "pandas", "matplotlib", "scipy", "numba")


def imported(code: str, directory: Path) -> list[str]:
    """Which of ``HEAVY`` a Python process has imported after some code."""
    code += f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1].replace("'", '"'))


@pytest.mark.slow
def test_reading_the_configuration_and_identities_imports_no_torch(tmp_path):
    code = """
from leaf.experiment.config import read_config
from leaf.experiment.costs import memory_mb, minutes
from leaf.experiment.identity import Identity, settings_json
config = read_config(overrides={"scale": "paper"})
settings = config.scales["paper"].settings
for cell in config.cells(config.experiments):
    Identity.of(cell, "paper", settings), settings_json(settings, [cell])
    minutes(cell, settings), memory_mb(cell, settings)
import leaf
leaf.ACTIVATIONS["leaf-tanh"], leaf.NETWORKS["lenet5"].title
"""
    assert imported(code, tmp_path) == []
    assert imported("import leaf\nleaf.LEAF", tmp_path)[:2] == ["torch", "numpy"]


@pytest.mark.parametrize(
    "command", [["cells"], ["cells", "--status", "waiting"], ["status", "--all"], ["prune"], ["--help"]], ids=" ".join
)
def test_commands_that_train_nothing_import_no_torch(command, tmp_path):
    code = f"from leaf.cli import main\ntry:\n    main({command})\nexcept SystemExit as end:\n    assert not end.code"
    assert imported(code, tmp_path) == []


@pytest.mark.slow
def test_snakemake_reads_the_snakefile_without_torch(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "-n", "--quiet", "-s", PROJECT / "Snakefile"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"leaf.experiment.config", "snakemake.workflow"} < modules
    assert not modules & {"torch", "matplotlib", "scipy", "numba"}  # Snakemake itself imports NumPy and pandas


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_is_known_of_an_activation_is_what_its_class_says(name):
    kind = ACTIVATIONS[name]
    check(name, kind)  # as what others register
    assert (kind.layer is not None) == kind.adaptive
    if kind.layer is not None:
        assert issubclass(kind.layer, Adaptive) and kind.family.split("@")[0].endswith(kind.layer.family)
        assert kind.form in kind.layer.forms and kind.fused == kind.layer.fused


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_known_of_a_network_is_what_its_class_says(name):
    known = NETWORKS[name]
    assert isinstance(known, KnownNetwork)
    made = known.layers.load()
    check_network(name, made)
    for key in ("title", "seconds_per_1000_images", "megabytes_per_image", "batch_norm"):
        assert getattr(made, key) == getattr(known, key)
    network = known((3, 32, 32), "leaf-tanh", 7)
    assert isinstance(network, Network) and type(network) is made


def test_kinds_of_learnable_activations_can_be_pickled():
    kind = pickle.loads(pickle.dumps(leaf.ACTIVATIONS["leaf-tanh"]))
    assert kind.title == "LEAF" and kind.layer is leaf.LEAF and type(kind.build((4,))) is leaf.LEAF
    layer = pickle.loads(pickle.dumps(leaf.LEAF((4,), "tanh")))
    assert type(layer) is leaf.LEAF


@pytest.mark.slow
def test_modules_of_the_library_are_attributes():
    code = "import leaf; print(leaf.peers.Swish.family, leaf.procedures.SLOWDOWN, 'LEAF' in dir(leaf))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "swish 1000 True\n"
