"""``run.json``: provenance of a finished cell's outputs, with the SHA-256 of the other files."""

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
        identity: identity of the results.
        scale: name of the scale.
        execution: threads, kernel and precision.
        sessions: sessions of the training, in order; the last one finished it.
        epochs: the number of epochs trained.
        diverged_at: the epoch with a non-finite loss, if any.
        nonfinite_layer: the first layer with non-finite outputs, if any.
        network_parameters: number of parameters of the network.
        train_seconds: wall time of training without testing, in seconds.
        peak_memory_bytes: peak memory of the process.
        sha256: SHA-256 of each other output, by file name.
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
        """Models of all devices that trained the cell."""
        return _joined(session.device for session in self.sessions)

    @property
    def commit(self) -> str | None:
        """All known commits that trained the cell."""
        return _joined(session.commit for session in self.sessions)

    @property
    def torch(self) -> str | None:
        """All known versions of torch that trained the cell."""
        return _joined(session.versions.get("torch") for session in self.sessions)

    @property
    def clean(self) -> bool | None:
        """Whether no session had uncommitted changes; ``None`` if unknown."""
        known = [session.clean for session in self.sessions if session.clean is not None]
        return all(known) if known else None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Run":
        """Parse a ``run.json`` in the present layout or that of commit 2790cbb."""
        values = values if "identity" in values else _from_flat(values)
        parts = {
            "identity": Identity.from_json(values["identity"]),
            "execution": Execution.from_json(values["execution"]),
            "sessions": [Session(**session) for session in values["sessions"]],
        }
        return cls(**{**values, **parts})


def _joined(values: Iterable[str | None]) -> str | None:
    """Join the distinct known values."""
    return " and ".join(dict.fromkeys(filter(None, values))) or None


def _from_flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the flat layout of commit 2790cbb to the present one."""
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
    """Read the ``run.json`` of a finished cell and verify its outputs; ``None`` if there is none.

    Args:
        optional: names of outputs that may be missing. Existing ones are verified like all others.
        by_time: skip outputs that are older than ``run.json`` by modification and change times: a large grid has
            gigabytes of them. In a copy that preserves modification times all outputs are read.

    Raises:
        DamagedError: if it cannot be read, or another output is missing or has changed.
    """
    advice = f"'leaf train' makes the outputs of {directory} again"
    try:
        run = Run.from_json(json.loads((directory / "run.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{directory / 'run.json'} is not a record of a run ({error!r}); {advice}") from None
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
