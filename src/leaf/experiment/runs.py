"""``run.json``: identity and provenance of a finished cell, and the SHA-256 of its other outputs."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from leaf.experiment.cells import OUTPUTS
from leaf.experiment.errors import DamagedError
from leaf.experiment.files import write_text
from leaf.experiment.identity import Identity, sha256
from leaf.experiment.provenance import Execution, Session


@dataclass(frozen=True)
class Run:
    """Contents of ``run.json``.

    Attributes:
        identity: identity of the results.
        scale: name of the scale.
        execution: threads, kernel and precision.
        sessions: sessions of the training, in order; the last one finished it.
        epochs: number of epochs of this cell's training.
        diverged_at: epoch with a non-finite loss, if any.
        nonfinite_layer: first layer with non-finite outputs, if any.
        network_parameters: number of parameters of the network.
        train_seconds: wall time of training without testing, in seconds.
        peak_memory_bytes: peak resident memory of the last session's process, in bytes.
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
        """Models of all devices that trained the cell, joined by "and"."""
        return _joined(session.device for session in self.sessions)

    @property
    def commit(self) -> str | None:
        """All known commits that trained the cell, joined by "and"."""
        return _joined(session.commit for session in self.sessions)

    @property
    def torch(self) -> str | None:
        """All known versions of torch that trained the cell, joined by "and"."""
        return _joined(session.versions.get("torch") for session in self.sessions)

    @property
    def clean(self) -> bool | None:
        """``True`` if no session had uncommitted changes, ``None`` if that is unknown."""
        known = [session.clean for session in self.sessions if session.clean is not None]
        return all(known) if known else None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Run":
        """Convert the JSON of a ``run.json``, in the present layout or that of commit 2790cbb."""
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
    execution = {key: values[key] for key in ("threads", "kernel", "precision")}
    # That commit recorded only the code and the versions of the last session, at its end.
    sessions = [*earlier, {**last, **values["git"], "versions": values["versions"]}]
    same = {one.name: values[one.name] for one in fields(Run) if one.name in values}
    return {**same, "identity": identity, "execution": execution, "sessions": sessions}


def write_run(directory: Path, run: Run) -> None:
    """Write ``run.json`` with the SHA-256 of the other outputs, which must already be in ``directory``."""
    sealed = replace(run, sha256={name: sha256(directory / name) for name in OUTPUTS if name != "run.json"})
    write_text(directory / "run.json", json.dumps(asdict(sealed), indent=2) + "\n")


def read_run(directory: Path, optional: Collection[str] = (), by_time: bool = False) -> Run | None:
    """Read the ``run.json`` of a finished cell and verify its other outputs; return ``None`` if there is none.

    Args:
        optional: names of outputs that may be missing. Existing ones are verified.
        by_time: do not read outputs that are older than ``run.json`` by modification and change times: a large grid has
            gigabytes of them. In a copy that preserves modification times, all outputs are read.

    Raises:
        DamagedError: if ``run.json`` cannot be read, or another output is missing or has changed.
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
            raise DamagedError(f"{file} is missing; {advice}")
        unchanged = by_time and max(file.stat().st_mtime_ns, file.stat().st_ctime_ns) < written
        if not unchanged and sha256(file) != digest:
            raise DamagedError(f"{file} is not the file that the run wrote; {advice}")
    return run
