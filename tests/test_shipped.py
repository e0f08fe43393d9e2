"""The shipped results: whole, told what made them, and nothing but what the analysis makes of their records."""

import shutil

from conftest import PROJECT

from leaf.analysis.analyse import analyse
from leaf.analysis.collection import LAST_EPOCHS, read_records
from leaf.analysis.layout import RECORDS
from leaf.experiment.config import read_config

SHIPPED = PROJECT / "reports/shipped"


def files(directory):
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_tables_and_figures_are_what_the_records_give(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    for name in (*RECORDS, "README.md"):
        shutil.copy(SHIPPED / name, tmp_path)
    values = read_config().values
    analyse(read_records(tmp_path), tmp_path, values["figure_format"], values["statistics"])
    made, shipped = files(tmp_path), files(SHIPPED)
    assert set(made) == set(shipped)
    # Pictures may differ in their last digits between processors: learned curves are computed for them.
    assert [name for name in made if not name.endswith(".svg") and made[name] != shipped[name]] == []


def test_every_cell_tells_what_made_it():
    records = read_records(SHIPPED)
    trained = records.cells[records.cells["status"] != "missing"]
    assert len(trained) >= 10 and set(trained["status"]) <= {"done", "diverged"}
    assert set(trained["scale"]) == {"paper"} and set(trained["precision"]) <= {"float32", "tf32"}
    assert trained[["commit", "training_version", "kernel", "device", "torch"]].notna().all(axis=None)
    assert trained["clean"].astype(bool).all()
    for cell in trained.to_dict("records"):
        epochs = records.epochs[records.epochs["cell"] == cell["cell"]]
        assert epochs["epoch"].tolist() == list(range(1, 101))
        assert epochs["test_accuracy"].max() == cell["best_accuracy"]
        assert epochs["epoch"].iloc[epochs["test_accuracy"].argmax()] == cell["best_epoch"]
        assert epochs["test_accuracy"].iloc[-LAST_EPOCHS:].mean() == cell["last_epochs_accuracy"]
        assert f"{cell['cell']}" in records.forms


def test_they_are_small():
    assert sum(map(len, files(SHIPPED).values())) < 20e6
