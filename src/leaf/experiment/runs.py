"""``run.json``: what made a finished cell's outputs, with the SHA-256 of the other files."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from leaf.experiment.cells import OUTPUTS
from leaf.experiment.errors import DamagedError
from leaf.experiment.files import write_text
from leaf.experiment.identity import Identity, sha256
from leaf.experiment.provenance import Execution, Session


@dataclass(frozen=True)
class Run:
    """The record of a finished cell.

    Attributes:
        identity: what made the results.
        scale: the scale that the cell was trained at.
        execution: how it computed.
        sessions: the starts of training, in order; the last one finished.
        epochs: the number of epochs trained.
        diverged_at: the epoch whose loss was not finite, if there was one.
        nonfinite_layer: the first layer that gave values that are not finite, if there was one.
        network_parameters: how many parameters the network has.
        train_seconds: wall time of training, without tests.
        peak_memory_bytes: the most memory that the process held.
        sha256: the digest of each other output, by file name.
    """

    identity: Identity
    scale: str
    execution: Execution
    sessions: list[Session]
    epochs: int
    diverged_at: int | None
    nonfinite_layer: str | None
    network_parameters: int
    train_seconds: float
    peak_memory_bytes: int
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def device(self) -> str | None:
        """The makes of all devices that the cell was trained on: they differ by rounding."""
        return _joined(session.device for session in self.sessions)

    @property
    def commit(self) -> str | None:
        """All commits that trained the cell, as far as they are known."""
        return _joined(session.commit for session in self.sessions)

    @property
    def torch(self) -> str | None:
        """All versions of torch that trained the cell, as far as they are known."""
        return _joined(session.versions.get("torch") for session in self.sessions)

    @property
    def clean(self) -> bool | None:
        """Whether no session had uncommitted changes, as far as that is known."""
        known = [session.clean for session in self.sessions if session.clean is not None]
        return all(known) if known else None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Run":
        """The run of a ``run.json``, in the present layout or in that of commit 2790cbb."""
        values = values if "identity" in values else _from_flat(values)
        parts = {
            "identity": Identity.from_json(values["identity"]),
            "execution": Execution.from_json(values["execution"]),
            "sessions": [Session(**session) for session in values["sessions"]],
        }
        return cls(**{**values, **parts})


def _joined(values: Iterable[str | None]) -> str | None:
    """The different values that are known."""
    return " and ".join(dict.fromkeys(filter(None, values))) or None


def _from_flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The present layout of a ``run.json`` with all values on one level, as commit 2790cbb wrote it."""
    *earlier, last = values["sessions"]
    kind = {"": None, "CPU": "cpu"}.get(values["device"][:3], "cuda")
    identity = {
        "cell": values["cell"]["name"], "settings": values["settings"], "training_version": values["training_version"],
        "data": values["data_sha256"], "device": kind, "plugins": values.get("guests", {}),
        "parent": values.get("parent", {}).get("model_sha256"),
    }  # fmt: skip
    same = (
        "scale", "epochs", "diverged_at", "nonfinite_layer", "network_parameters", "train_seconds",
        "peak_memory_bytes", "sha256",
    )  # fmt: skip
    return {
        "identity": identity,
        "execution": {key: values[key] for key in ("threads", "kernel", "precision")},
        # Commit and versions were looked up once, when the last session ended.
        "sessions": [*earlier, {**last, **values["git"], "versions": values["versions"]}],
        **{key: values[key] for key in same},
    }


def write_run(directory: Path, run: Run) -> None:
    """Write ``run.json`` with the digests of the other outputs, which must be in ``directory`` already."""
    sealed = replace(run, sha256={name: sha256(directory / name) for name in OUTPUTS if name != "run.json"})
    write_text(directory / "run.json", json.dumps(asdict(sealed), indent=2) + "\n")


def read_run(directory: Path, optional: Collection[str] = (), by_time: bool = False) -> Run | None:
    """The ``run.json`` of a finished cell, or ``None`` if there is none.

    Args:
        optional: names of outputs that may be missing. Those that are there are checked like all others.
        by_time: do not read outputs that have not changed since ``run.json`` was written, as far as the file system
            knows: a large grid has gigabytes of them. In a copy that keeps times all of them are read.

    Raises:
        DamagedError: if it cannot be read, or another output is missing or has changed.
    """
    advice = f"'leaf train' makes the outputs of {directory} again"
    try:
        run = Run.from_json(json.loads((directory / "run.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{directory / 'run.json'} is no record of a run ({error!r}); {advice}") from None
    written = (directory / "run.json").stat().st_mtime_ns
    for name, digest in run.sha256.items():
        if not (file := directory / name).is_file():
            if name in optional:
                continue
            raise DamagedError(f"{directory / name} is missing; {advice}")
        unchanged = by_time and max(file.stat().st_mtime_ns, file.stat().st_ctime_ns) < written
        if not unchanged and sha256(file) != digest:
            raise DamagedError(f"{directory / name} is not the file that the run wrote; {advice}")
    return run
