"""Provenance of a training: execution, machine and code. It is recorded, but is not part of a result's identity."""

import platform
import resource
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from leaf.experiment.errors import UserError

RENAMED_KERNELS = {"plain": "reference"}
"""Present names of kernels that older files name differently."""


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
        """Read an execution from a cell's file."""
        return cls(**{**values, "kernel": RENAMED_KERNELS.get(values["kernel"], values["kernel"])})


@dataclass
class Session:
    """One run of a cell's training process. Values that older versions did not record have their defaults.

    Attributes:
        started: start date and time in UTC.
        host: name of the machine.
        device: model of the device.
        commit: git commit of the code; ``None`` outside a git checkout.
        clean: whether the checkout had no uncommitted changes; ``None`` outside one.
        versions: versions of Python and the packages that results depend on.
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
        return cls(timestamp(time.time()), socket.gethostname(), device, **git(), versions=versions())


def timestamp(seconds: float) -> str:
    """Format seconds since 1970 as an ISO 8601 date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def cpu_name() -> str:
    """Model name of the CPU."""
    models = [
        line.split(":")[1].strip() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    return f"CPU ({models[0] if models else platform.machine()})"


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    # getrusage is only a fallback: its figure includes the process that started this one.
    peaks = [int(line.split()[1]) for line in _read("/proc/self/status").splitlines() if line.startswith("VmHWM")]
    return 1024 * (peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError:
        return ""


def git() -> dict[str, Any]:
    """The ``commit`` of the code and whether the checkout is ``clean``; empty outside a git checkout."""

    def call(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    try:
        # This fails if the package is installed inside the checkout of another project.
        call("ls-files", "--error-unmatch", __file__)
        return {"commit": call("rev-parse", "HEAD"), "clean": not call("status", "--porcelain", "--untracked-files=no")}
    except (OSError, subprocess.CalledProcessError):
        return {}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on.

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
