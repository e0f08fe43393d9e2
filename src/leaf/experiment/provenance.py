"""How, where and by which code a cell is trained: recorded, but no part of what makes a result."""

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


@dataclass(frozen=True)
class Execution:
    """How a cell computes. This changes rounding only; a resumed training keeps it.

    Attributes:
        threads: threads of every operation, on a CPU.
        kernel: what computes AHAF and LEAF, see ``leaf.kernels``; ``"plain"`` for other functions.
        precision: a name in ``PRECISIONS``.
    """

    threads: int
    kernel: str
    precision: str


@dataclass
class Session:
    """One start of a cell's training. Values that older versions did not record keep their defaults.

    Attributes:
        started: date and time in UTC.
        host: name of the machine.
        device: make of the device.
        commit: the commit of the code; ``None`` outside a git checkout.
        clean: whether the checkout had no uncommitted changes.
        versions: of Python and the packages that results depend on.
        seconds: wall time until the last state was written.
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
        """A session that starts now, with the code as it is now.

        Args:
            device: make of the device.

        Raises:
            UserError: if the version of a package cannot be found.
        """
        return cls(timestamp(time.time()), socket.gethostname(), device, **git(), versions=versions())


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as a date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def cpu_name() -> str:
    """The make of the CPU."""
    models = [
        line.split(":")[1].strip() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    return f"CPU ({models[0] if models else platform.machine()})"


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    # Not getrusage where this is known: its figure includes the process that started this one.
    peaks = [int(line.split()[1]) for line in _read("/proc/self/status").splitlines() if line.startswith("VmHWM")]
    return 1024 * (peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError:
        return ""


def git() -> dict[str, Any]:
    """The commit that the code stands at and whether nothing was changed since; empty outside a git checkout."""

    def call(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    try:
        # It fails where another project's checkout is merely what this is installed in.
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
