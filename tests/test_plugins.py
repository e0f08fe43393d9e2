"""Plugins: user code is trained, tabulated and plotted like built-in code, and its versions are never mixed."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import PROJECT
from project_copy import Copy
from test_networks import weights_digest

from leaf import build_network
from leaf.activations import ACTIVATIONS, fixed, plain
from leaf.analysis.collection import read_records
from leaf.analysis.tables import paper_table
from leaf.cli import main
from leaf.experiment.cells import CHOICES, Cell
from leaf.experiment.errors import UserError
from leaf.experiment.identity import Identity, settings_json
from leaf.experiment.job import train_cell
from leaf.experiment.plugins import load_plugins, read_settings, unload_plugins
from leaf.experiment.random_streams import initial_network
from leaf.experiment.runs import read_run
from leaf.experiment.scales import Settings
from leaf.networks import NETWORKS

EXAMPLES = PROJECT / "examples"
SETTINGS = Settings(epochs=1, train_images=256, test_images=100)


@pytest.fixture(autouse=True)
def house():
    """Unload all plugins after each test."""
    yield
    unload_plugins()


@pytest.fixture
def project(empty_project):
    """A project without results, with the configuration and an example of each kind."""
    for name in ("config.yaml", "workflow"):
        (empty_project / name).symlink_to(PROJECT / name)
    shutil.copytree(EXAMPLES, empty_project / "examples")
    return empty_project


def train(cell: Cell) -> list[str]:
    said: list[str] = []
    train_cell(cell, "tiny", SETTINGS, "cpu", threads=1, log=said.append)
    return said


# --- through the workflow ---------------------------------------------------------------------------------------------

TINY = """
scale: tiny
scales:
  tiny: {extends: quick, epochs: 1, train_images: 256, test_images: 100}
plugins: [examples/my_activation.py, examples/my_network.py, examples/my_dataset.py]
experiments:
  mine:
    title: Mine
    networks: [mlp]
    datasets: [shoes]
    procedures: [classic]
    optimizers: [adam]
    seeds: [42]
    cells:
      - {activations: [beta-mish]}
      - {activations: [tanh]}
device: cpu
"""
CELL = "mlp/shoes/beta-mish/classic/adam/seed42"
TARGETS = ["reports/tiny/tables/mine/mlp/paper.md", f"reports/tiny/figures/forms/{CELL}.svg"]


@pytest.fixture(scope="module")
def grid(data, tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("project"), TINY)
    (copy.directory / "resources/datasets/shoes.safetensors").unlink(missing_ok=True)
    copy.snakemake(*TARGETS)
    return copy


def test_an_example_of_each_kind_goes_through_the_workflow(grid):
    table, picture = ((grid.directory / target).read_text() for target in TARGETS)
    assert "Shoes, best accuracy, %" in table and "</svg>" in picture
    assert re.search(r"\| BetaMish +\| Mish +\| Classic +\| \d\d\.\d\d", table)
    run = read_run(grid.directory / "results/tiny" / CELL)
    assert set(run.identity.plugins) == {f"examples/my_{kind}.py" for kind in ("activation", "network", "dataset")}
    assert "Nothing to be done" in grid.snakemake("-n", *TARGETS)


def test_a_changed_plugin_retrains_the_cells_that_use_it_and_no_other(grid):
    grid.edit("examples/my_activation.py", "softplus(beta * u)", "beta * u")
    jobs = grid.jobs(*TARGETS)
    assert (jobs["train"], jobs["network_tables"], jobs["forms_charts"]) == (1, 1, 1)
    status = grid.run("leaf", "status", "--configfile", "own.yaml", "--experiment", "mine").stdout
    assert "1 done, 1 stale" in status or "1 stale, 1 done" in status
    assert re.search(rf"stale +{CELL}: made with another version of examples/my_activation.py", status)


def test_the_former_name_of_fixed():
    with pytest.warns(DeprecationWarning, match="plain is now fixed"):
        kind = plain("mish", torch.nn.Mish)
    assert (kind.family, kind.form, type(kind.build((3,)))) == ("base", "mish", torch.nn.Mish)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_settings_name_the_plugins_of_their_cells_and_nothing_else(project):
    load_plugins(["examples/my_activation.py", "examples/my_network.py"])
    plain = Cell("lenet5", "cifar10", "leaf-tanh", "p24sl", "adam", 42)
    ours = Cell("lenet5", "cifar10", "beta-mish", "dspt", "adam", 42)
    assert (
        settings_json(Settings(), [plain])
        == Settings().to_json()
        == (
            '{"batch_size":128,"epochs":100,"shuffle":false,"test_images":null,"train_images":null,"validation_images":0}'
        )
    )  # as ever: what Snakemake holds against its records
    text = settings_json(Settings(), [plain, ours])
    assert list(json.loads(text)["plugins"]) == ["examples/my_activation.py"]
    unload_plugins()
    with pytest.raises(UserError, match="unknown activation 'beta-mish'"):
        Cell.parse(ours.name)
    assert read_settings(text) == Settings()
    assert Cell.parse(ours.name) == ours and "mlp" not in CHOICES["network"]
    file = project / "examples/my_activation.py"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UserError, match=r"plugin examples/my_activation.py: has changed since the job was created"):
        read_settings(text)


def test_a_job_knows_its_plugins_from_its_settings_alone(project, capsys):
    load_plugins(["examples/my_network.py"])
    cell = Cell("mlp", "fashion_mnist", "leaf-tanh", "p24sl", "adam", 42)
    text = settings_json(SETTINGS, [cell])
    (project / "config.yaml").unlink()
    unload_plugins()
    made = ["--scale", "tiny", "--settings", text]
    main(["train", cell.name, *made, "--device", "cpu", "--precision", "float32"])
    main(["table", cell.name, *made, "--statistics", "{}", "--summary", "a.csv"])
    main(["figure", cell.name, *made, "--progress", "a.svg", "--forms", "b.svg", "--evolution", "c.svg"])
    assert "LEAF as Tanh" in (project / "a.csv").read_text() and (project / "c.svg").exists()


def test_collected_records_of_plugins_need_their_plugins(project, capsys):
    overrides = "{scale: tiny, scales: {tiny: {extends: quick, epochs: 1, train_images: 256, test_images: 100}}PLUGINS}"
    with_plugins = overrides.replace("PLUGINS", ", plugins: [examples/my_network.py]")
    load_plugins(["examples/my_network.py"])
    train(Cell("mlp", "fashion_mnist", "tanh", "classic", "adam", 42))
    unload_plugins()
    main(["collect", "--config", with_plugins, "--output", "here"])
    assert "'done': 1" in capsys.readouterr().out
    table = paper_table(read_records(Path("here")).select(network="mlp"))
    assert re.fullmatch(r"\d\d\.\d\d", table["Fashion-MNIST", "best accuracy, %"].item())
    unload_plugins()
    assert "has records of the network 'mlp', which is not known here; if a plugin" in error_of(["analyse", "here"])
    main(["collect", "--config", overrides.replace("PLUGINS", ""), "--output", "there"])
    said = capsys.readouterr()
    assert "mlp/fashion_mnist/tanh/classic/adam/seed42: skipped: " in said.err and "done" not in said.out


def test_processes_that_draw_know_the_plugins(project, capfd):
    config = "{scale: tiny, scales: {tiny: {extends: quick, epochs: 1, train_images: 256, test_images: 100}},"
    config += " plugins: [examples/my_activation.py]}"
    load_plugins(["examples/my_activation.py"])
    cell = Cell("lenet5", "fashion_mnist", "beta-mish", "classic", "adam", 42)
    train(cell)
    main(["collect", "--config", config, "--output", "here"])
    main(["analyse", "here", "--config", config, "--threads", "1"])
    assert (project / f"here/figures/evolution/{cell.name}.svg").exists()


def test_a_state_of_another_plugin_is_passed_over(project, monkeypatch):
    load_plugins(["examples/my_activation.py"])
    cell = Cell("lenet5", "fashion_mnist", "beta-mish", "classic", "adam", 42)
    train(cell)
    directory = cell.directory("tiny")
    assert train(cell) == [f"{cell.name}: outputs are current, kept"]
    first = read_run(directory)
    assert not Identity.of(cell, "tiny", SETTINGS).differences(first.identity)
    file = project / "examples/my_activation.py"
    (project / "examples/elsewhere.py").write_bytes(file.read_bytes())
    unload_plugins()
    load_plugins(["examples/elsewhere.py"])
    assert train(cell) == [f"{cell.name}: outputs are current, kept"]  # where it lies changes nothing
    file.write_text(file.read_text().replace("(1.0,)", "(2.0,)"))
    unload_plugins()
    load_plugins(["examples/my_activation.py"])
    assert Identity.of(cell, "tiny", SETTINGS).differences(first.identity)
    assert "state.pt: made with another version of examples/my_activation.py, skipped" in train(cell)[0]
    assert read_run(directory).sha256["model.safetensors"] != first.sha256["model.safetensors"]
    built_in = ACTIVATIONS["beta-mish"]
    unload_plugins()
    monkeypatch.setitem(ACTIVATIONS, "mish", fixed("mish", torch.nn.Mish))
    monkeypatch.setitem(ACTIVATIONS, "beta-mish", built_in)  # as if a newer version of the package had it
    assert "state.pt: made with another version of examples/my_activation.py, skipped" in train(cell)[0]


def test_a_file_that_changed_is_another_plugin(project):
    load_plugins(["examples/my_network.py"])
    before = NETWORKS["mlp"]
    load_plugins(["examples/my_network.py"])
    assert NETWORKS["mlp"] is before
    file = project / "examples/my_network.py"
    file.write_text(file.read_text().replace("128", "64"))
    load_plugins(["examples/my_network.py"])
    assert build_network("mlp", "fashion_mnist", "relu").linear1.out_features == 64


DRAWING = """
import torch
from leaf.activations import ACTIVATIONS, Adaptive, learnable

class Drawing(Adaptive):
    family, parameter_names, forms = "drawing", ("scale",), {"relu": (1.0,)}
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        torch.nn.init.normal_(self.scale)
    def formula(self, u, scale):
        return scale * u.relu()

ACTIVATIONS["drawing"] = learnable(Drawing, "relu")
"""


def test_an_activation_that_draws_leaves_the_weights_as_they_are(project):
    """Comparisons are paired: if an activation draws random numbers, weights and images stay the same."""
    (project / "drawing.py").write_text(DRAWING)
    load_plugins(["drawing.py"])
    found = {}
    for activation in ("relu", "drawing"):
        network, streams = initial_network(
            42, lambda activation=activation: build_network("kerasnet", "cifar10", activation), (128, 3, 32, 32)
        )
        found[activation] = weights_digest(network), streams.next_loader_seed(), torch.rand(3).tolist()
    assert found["drawing"] == found["relu"]
    assert network.activations[0].scale.std() > 0.5


# --- mistakes ---------------------------------------------------------------------------------------------------------

PLAIN = "from torch import nn\nfrom leaf.activations import ACTIVATIONS, Activation, fixed\n"
NETWORK = "from torch import nn\nfrom leaf.networks import NETWORKS, Network\n"
DATASET = "from leaf.experiment.datasets import DATASETS, Dataset\n"
LEARNABLE = """
from leaf.activations import ACTIVATIONS, Activation, Adaptive, learnable
class Mine(Adaptive):
    family, parameter_names, forms = "mine", ("a",), {"relu": (1.0,)}
    def formula(self, u, a):
        return FORMULA
ACTIVATIONS["mine"] = learnable(Mine, "relu")
"""

MISTAKES = {
    "syntax": ("def f(:\n", r"SyntaxError: invalid syntax .*\(line 1\)"),
    "an exception": ("x = 1\n\n1 / 0\n", r"ZeroDivisionError: division by zero \(line 3\)"),
    "an exit": ("import sys\nsys.exit('I leave')\n", r"SystemExit: I leave \(line 2\)"),
    "a missing package": ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "nothing registered": ("x = 1\n", "registers nothing; expected an entry in ACTIVATIONS, NETWORKS or DATASETS"),
    "no text": (b"\xff\xfe\x00", "SyntaxError: "),
    "a name that exists": (
        PLAIN + 'ACTIVATIONS["relu"] = fixed("relu", nn.Mish)\n',
        "activation 'relu' exists already; choose another name",
    ),
    "a name registered again": (
        PLAIN + 'ACTIVATIONS.register("relu", fixed("relu", nn.Mish))\n',
        "activation 'relu' exists already; choose another name",
    ),
    "another name for what exists": (
        PLAIN + 'ACTIVATIONS["a"] = ACTIVATIONS.pop("relu")\n',
        "activation 'a': a base function's form is its own name, not 'relu'",
    ),
    "a name taken away": (
        PLAIN + 'ACTIVATIONS.pop("relu")\nACTIVATIONS.register("mish", fixed("mish", nn.Mish))\n',
        "removes the activation 'relu', which it did not register",
    ),
    "a name that is replaced": (
        PLAIN + 'ACTIVATIONS.pop("relu")\nACTIVATIONS.register("relu", fixed("relu", nn.Mish))\n',
        "removes the activation 'relu', which",
    ),
    "no name": (
        PLAIN + 'ACTIVATIONS.register(nn.Mish, fixed("a", nn.Mish))\n',
        "activation <class .*: names consist of",
    ),
    "arguments that it does not take": (
        LEARNABLE.replace("FORMULA", "a * u").replace(
            "    def formula",
            "    def __init__(self, shape, form, sharing=''):\n        super().__init__(shape, form)\n    def formula",
        ),
        "activation 'mine': Mine lacks arguments of Adaptive: got an unexpected keyword .* 'channel_dim'",
    ),
    "a name for no path": (
        PLAIN + 'ACTIVATIONS["a/b"] = fixed("a/b", nn.Mish)\n',
        "activation 'a/b': names consist of",
    ),
    "a name for no path, by update": (
        PLAIN + 'ACTIVATIONS.update({"a/b": fixed("a/b", nn.Mish)})\n',
        "activation 'a/b': names consist of",
    ),
    "no Activation": (
        PLAIN + 'ACTIVATIONS["mine"] = nn.Mish\n',
        "activation 'mine' is not an Activation; make one with",
    ),
    "another name than its form": (
        PLAIN + 'ACTIVATIONS["mine"] = fixed("mish", nn.Mish)\n',
        "'mine': a base function's form is its own name, not 'mish'",
    ),
    "a form that nobody knows": (
        LEARNABLE.replace('"relu"', '"rleu"'),
        "activation 'mine': its form 'rleu' is not a base function in ACTIVATIONS",
    ),
    "a form that the family lacks": (
        LEARNABLE.replace("FORMULA", "a * u").replace('(Mine, "relu")', '(Mine, "silu")'),
        "ValueError: Mine has no form 'silu'; its forms are: relu",
    ),
    "a family twice": (
        LEARNABLE.replace("FORMULA", "a * u") + 'ACTIVATIONS["again"] = learnable(Mine, "relu")\n',
        "family 'mine' as 'relu' is",
    ),
    "another output shape": (
        LEARNABLE.replace("FORMULA", "u.sum(1)"),
        r"RuntimeError: shape '\[5, 2, 4, 6\]' is invalid",
    ),
    "another output shape of a module": (
        PLAIN + 'ACTIVATIONS["mine"] = fixed("mine", nn.Flatten)\n',
        r"activation 'mine': gives \[5, 48\] for inputs of shape \[5, 2, 4, 6\], not the same shape",
    ),
    "no tensor": (
        PLAIN + 'class M(nn.Module):\n    forward = lambda self, u: (u, u)\nACTIVATIONS["mine"] = fixed("mine", M)\n',
        "activation 'mine': gives tuple for inputs of shape",
    ),
    "a failing formula": (LEARNABLE.replace("FORMULA", "a * u / v"), r"NameError: name 'v' is not defined \(line 6\)"),
    "learnable, but no Adaptive": (
        PLAIN + 'ACTIVATIONS["mine"] = Activation("mine", "Mine", "relu", lambda shape: nn.PReLU(), adaptive=True)\n',
        "activation 'mine': a learnable activation is a leaf.activations.Adaptive",
    ),
    "plain, but with parameters": (
        PLAIN + 'ACTIVATIONS["mine"] = fixed("mine", nn.PReLU)\n',
        "activation 'mine': adaptive is False, which its parameters contradict",
    ),
    "no network": (NETWORK + 'NETWORKS["mine"] = nn.Linear\n', "network 'mine' is not a subclass of"),
    "a network without a title": (
        NETWORK + 'class Mine(Network):\n    pass\nNETWORKS["mine"] = Mine\n',
        "network 'mine': the class has no title",
    ),
    "no data set": (DATASET + 'DATASETS["mine"] = [1]\n', "dataset 'mine' is not a Dataset"),
    "a data set from nowhere": (
        DATASET + 'DATASETS["mine"] = Dataset("Mine", (1, 8, 8), 2, {}, {})\n',
        "dataset 'mine' has no read",
    ),
    "a data set without sizes": (
        DATASET + 'DATASETS["mine"] = Dataset("Mine", (1, 8, 8), 2, {}, {}, dict)\n',
        "dataset 'mine': images needs the keys train and test, sha256 train_images, train_labels",
    ),
}


@pytest.mark.parametrize(("source", "message"), MISTAKES.values(), ids=MISTAKES)
def test_invalid_plugins(tmp_path, source, message):
    file = tmp_path / "plugin.py"
    file.write_bytes(source if isinstance(source, bytes) else source.encode())
    before = {field: list(known) for field, known in CHOICES.items()}
    with pytest.raises(UserError, match=message) as error:
        load_plugins([str(file)])
    assert str(error.value).startswith(f"plugin {file}: ") and "\n" not in str(error.value)
    assert {field: list(known) for field, known in CHOICES.items()} == before
    assert ACTIVATIONS["relu"].family == "base"


def error_of(arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert "\n" not in str(exit_.value.code)
    return str(exit_.value.code)


def test_mistakes_on_the_command_line(project):
    assert error_of(["cells", "--config", "{plugins: [nobody.py]}"]) == (
        "leaf: plugin nobody.py: not found; paths are relative to the working directory"
    )
    assert "plugins: expected array, found 'a.py'" in error_of(["cells", "--config", "{plugins: a.py}"])
    assert "plugins.0: expected string, found 3" in error_of(["cells", "--config", "{plugins: [3]}"])
    assert "has non-unique elements" in error_of(["cells", "--config", "{plugins: [a.py, a.py]}"])


BROKEN = """
from torch import nn
from leaf.activations import ACTIVATIONS
from leaf.networks import NETWORKS, Network

class Broken(Network):
    title = "Broken"
    def __init__(self, image_shape, activation, classes=10):
        super().__init__(image_shape, activation, classes)
        self.flatten = nn.Flatten()
        self.activation1 = ACTIVATIONS[activation].build((784,))
        self.linear = nn.Linear(INPUTS, OUTPUTS)

NETWORKS["broken"] = Broken
"""


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ("784", "classes + 1", r"two images give an output of shape \[2, 11\], expected logits of shape \[2, 10\]"),
        ("100", "classes", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("nothing", "classes", r"NameError: name 'nothing' is not defined \(line 12\)"),
    ],
)
def test_a_network_that_cannot_be_trained(project, inputs, outputs, message):
    (project / "broken.py").write_text(BROKEN.replace("INPUTS", inputs).replace("OUTPUTS", outputs))
    said = error_of(["train", "broken/fashion_mnist/relu/classic/adam/seed1", "--config", "{plugins: [broken.py]}"])
    assert re.search(f"broken.py: network 'broken' with 'relu' for 'fashion_mnist': {message}", said), said
    assert {file.name for file in Path("results").rglob("*.*")} == {"status.json"}  # which keeps the reason


SET = """
import numpy as np
from leaf.experiment.datasets import DATASETS, Dataset

def read(directory):
    READ

keys = ("train_images", "train_labels", "test_images", "test_labels")
DATASETS["mine"] = Dataset("Mine", (1, 8, 8), 2, {"train": 4, "test": 2}, dict.fromkeys(keys, ""), read)
"""


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ("raise OSError('disk gone')", "data set mine: its plugin's read: OSError: disk gone"),
        ("return 3", "data set mine: its plugin's read: AttributeError: "),
        (
            "return {}",
            "data set mine: its plugin's read returns other arrays: train_images missing; train_labels missing",
        ),
        (
            "return {'train_images': np.zeros((4, 8, 8))}",
            r"train_images is float64\[4, 8, 8\], not uint8\[4, 1, 8, 8\]",
        ),
        (
            "return {'train_labels': np.zeros(4, np.uint8)}",
            "train_labels has SHA-256 df3f6198.*, its definition has none",
        ),
    ],
)
def test_a_data_set_that_is_unavailable(project, read, message):
    (project / "mine.py").write_text(SET.replace("READ", read))
    assert re.search(message, error_of(["fetch", "mine", "--config", "{plugins: [mine.py]}"]))
