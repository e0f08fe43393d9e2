"""What made a result: versions, device, commit, memory."""

import platform
import resource
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as a date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def device_name(device: torch.device) -> str:
    """The make of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
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
    """Versions of Python and of the packages that results depend on."""
    packages = ("leaf-activations", "torch", "numpy")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
