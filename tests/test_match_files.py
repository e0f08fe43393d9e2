"""Matches of learned curves in collected files: stored with the functions' names, layers in natural order."""

import dataclasses
import runpy
import shutil

import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import PROJECT

from leaf.activations import ACTIVATIONS, BASE_FUNCTIONS, Affine
from leaf.analysis import collection, matching
from leaf.analysis.collection import read_records, write_records
from leaf.analysis.forms import layers
from leaf.analysis.tables import matches_table
from leaf.errors import UserError

SHIPPED = PROJECT / "reports/shipped"
OLD = ("relu", "silu", "tanh", "sigmoid", "linear")


def matches(records) -> dict[str, np.ndarray]:
    return {
        f"{cell}/{name}": values
        for cell, forms in records.forms.items()
        for name, values in forms.items()
        if name.startswith("matches/")
    }


@pytest.fixture
def files(tmp_path):
    for name in ("cells.csv", "epochs.csv", "forms.safetensors"):
        shutil.copy(SHIPPED / name, tmp_path)
    return tmp_path


def stored(directory, functions: str | None) -> None:
    """Store the same matches as if they were with other functions."""
    tensors = safetensors.numpy.load_file(directory / "forms.safetensors")
    metadata = {"functions": functions} if functions else None
    safetensors.numpy.save_file(tensors, directory / "forms.safetensors", metadata)


def test_files_name_the_functions(files):
    before = read_records(files)
    write_records(before, files)
    with safetensors.safe_open(files / "forms.safetensors", framework="numpy") as file:
        assert file.metadata() == {"functions": " ".join(OLD)}
    after = read_records(files)
    assert matches(before) and matches(before).keys() == matches(after).keys()
    for name, values in matches(after).items():
        np.testing.assert_array_equal(values, matches(before)[name])
    stored(files, None)
    with pytest.raises(UserError, match=r"no collected records \('functions'\)"):
        read_records(files)


def test_another_order_and_an_additional_function(files, monkeypatch):
    found = matches(read_records(files))
    stored(files, "linear sigmoid tanh silu relu")
    for name, values in matches(read_records(files)).items():
        np.testing.assert_array_equal(values, found[name][::-1])
    stored(files, " ".join(OLD))
    for module in (matching, collection):
        monkeypatch.setattr(module, "FUNCTIONS", ("gelu", *OLD))
    for name, values in matches(read_records(files)).items():
        assert np.isnan(values[0]).all()
        np.testing.assert_array_equal(values[1:], found[name])
    monkeypatch.undo()
    stored(files, "relu silu tanh gelu linear")
    with pytest.raises(UserError, match="curves are matched with gelu, which this version does not know"):
        read_records(files)


def test_a_new_base_function_makes_nothing_else_new(monkeypatch):
    monkeypatch.setitem(BASE_FUNCTIONS, "softsign", torch.nn.Softsign)
    assert runpy.run_path(matching.__file__)["FUNCTIONS"] == matching.FUNCTIONS == OLD
    assert tuple(Affine.forms) == OLD[:4] == tuple(name[7:] for name in ACTIVATIONS if name.startswith("affine-"))


def test_layers_are_in_natural_order(files):
    names = [f"activation{number}" for number in (10, 2, 1, 12)]
    curves = {f"curves/{name}": np.zeros(1) for name in names}
    assert layers(curves) == [f"activation{n}" for n in (1, 2, 10, 12)]
    records = read_records(files)
    cell = next(iter(records.forms))
    matched = next(iter(matches(records).values()))
    forms = {cell: curves | {f"matches/{name}": matched for name in names}}
    table = matches_table(dataclasses.replace(records, forms=forms))
    assert list(table["layer"]) == [f"activation{n}" for n in (1, 2, 10, 12)]
