"""Provenance of a training: execution, machine and code. It is recorded but not part of the results' identity."""

import platform
import resource
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from leaf.experiment.errors import UserError

RENAMED_KERNELS = {"plain": "reference"}
"""Present names of kernels, by their former names in older files."""


@dataclass(frozen=True)
class Execution:
    """Settings of the computation that affect rounding only. A resumed training keeps them.

    Attributes:
        threads: number of CPU threads of each operation.
        kernel: name of the kernel of AHAF and LEAF, see ``leaf.kernels``; ``"reference"`` for other activations.
        precision: a name in ``PRECISIONS``.
    """

    threads: int
    kernel: str
    precision: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Execution":
        """Convert the JSON of an execution, with a former name of a kernel or the present one."""
        return cls(**{**values, "kernel": RENAMED_KERNELS.get(values["kernel"], values["kernel"])})


@dataclass
class Session:
    """One run of a cell's training process. Older files lack the values that have defaults.

    Attributes:
        started: date and time of the start in UTC, in ISO 8601.
        host: name of the machine.
        device: model of the device.
        commit: git commit of the code; ``None`` outside a git checkout.
        clean: whether the checkout had no uncommitted changes; ``None`` outside one.
        versions: versions of Python and of the packages that results depend on.
        seconds: wall time until the last state was written, in seconds.
    """

    started: str
    host: str = ""
    device: str = ""
    commit: str | None = None
    clean: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def start(cls, device: str) -> "Session":
        """Start a session with the current time and code.

        Args:
            device: model name of the device.

        Raises:
            UserError: if the version of a package cannot be found.
        """
        return cls(timestamp(), socket.gethostname(), device, **git(), versions=versions())


def timestamp() -> str:
    """Return the present date and time in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cpu_name() -> str:
    """Return the model name of the CPU."""
    models = [
        line.split(":")[1].strip() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    return f"CPU ({models[0] if models else platform.machine()})"


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes."""
    # getrusage is only a fallback: after a fork, its figure includes the parent process.
    peaks = [int(line.split()[1]) for line in _read("/proc/self/status").splitlines() if line.startswith("VmHWM")]
    return 1024 * (peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError:
        return ""


def git() -> dict[str, Any]:
    """Return the ``commit`` of the code and whether the checkout is ``clean``; empty outside a git checkout."""

    def call(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    try:
        # fails if the package is installed inside the checkout of another project
        call("ls-files", "--error-unmatch", __file__)
        return {"commit": call("rev-parse", "HEAD"), "clean": not call("status", "--porcelain", "--untracked-files=no")}
    except (OSError, subprocess.CalledProcessError):
        return {}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on.

    Raises:
        UserError: if a package is not installed.
    """
    packages = ("leaf-activations", "torch", "numpy")
    try:
        return {"python": platform.python_version(), **{package: version(package) for package in packages}}
    except PackageNotFoundError as error:
        raise UserError(
            f"package {error.name} is not installed, so its version cannot be recorded; install it with pip"
        ) from None
