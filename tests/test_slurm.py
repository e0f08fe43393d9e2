"""The comparison in `make test-slurm` detects wrong results: real results with modifications."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
from slurm import differences
from test_job import CELL, train

from leaf.experiment.cells import OUTPUTS
from leaf.experiment.runs import Run, write_run

OTHER = replace(CELL, activation="tanh", procedure="classic")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The results of two cells."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("trained")
        (directory / "resources").symlink_to(Path("resources").absolute())
        patch.chdir(directory)
        for cell in (CELL, OTHER):
            train(cell)
        return directory / "results/tiny"


def alter_metrics(cell: Path) -> None:
    metrics = pd.read_csv(cell / "metrics.csv")
    metrics.loc[1, "test_loss"] += 1e-15
    metrics.to_csv(cell / "metrics.csv", index=False)


def alter_tensors(file: str):
    def alter(cell: Path) -> None:
        tensors = safetensors.torch.load_file(cell / file)
        name = next(iter(tensors))
        tensors[name] = tensors[name] * 2 + 1
        safetensors.torch.save_file(tensors, cell / file)

    return alter


def alter_run(cell: Path) -> None:
    run = json.loads((cell / "run.json").read_text())
    (cell / "run.json").write_text(json.dumps(run | {"diverged_at": 3}))


ALTERATIONS = {
    "metrics.csv": alter_metrics,
    "model.safetensors": alter_tensors("model.safetensors"),
    "forms.safetensors": alter_tensors("forms.safetensors"),
    "run.json": alter_run,
}


@pytest.fixture
def trees(trained, tmp_path) -> tuple[Path, Path]:
    """The results twice: as those of a run, and as the expected ones."""
    return shutil.copytree(trained, tmp_path / "results"), shutil.copytree(trained, tmp_path / "undisturbed")


def names(*cells) -> list[str]:
    return [cell.name for cell in cells]


def test_equal_results(trees):
    assert differences(*trees, names(CELL, OTHER)) == []


@pytest.mark.parametrize(("file", "alter"), ALTERATIONS.items(), ids=ALTERATIONS)
def test_a_wrong_result(trees, file, alter):
    """Results of another training: complete and sealed."""
    directory = trees[0] / OTHER.name
    alter(directory)
    write_run(directory, Run.from_json(json.loads((directory / "run.json").read_text())))
    assert differences(*trees, names(CELL, OTHER)) == [f"{OTHER.name}: other {file}"]


@pytest.mark.parametrize("file", OUTPUTS)
@pytest.mark.parametrize("tree", [0, 1])
def test_a_missing_file(trees, file, tree):
    missing = trees[tree] / OTHER.name / file
    missing.unlink()
    (line,) = differences(*trees, names(CELL, OTHER))
    assert line.startswith(f"{OTHER.name}: {missing} is missing")


def test_a_changed_byte(trees):
    file = trees[0] / CELL.name / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    (line,) = differences(*trees, names(CELL, OTHER))
    assert line.startswith(f"{CELL.name}: {file} is not the file that the run wrote")


def test_an_unexpected_cell(trees):
    assert differences(*trees, names(CELL)) == [f"{OTHER.name}: was not requested"]
