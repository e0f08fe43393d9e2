"""The state of a cell in training, on disk: what a killed job, a longer run or lost outputs go on from."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from leaf.experiment.files import write_whole

STATE, PREVIOUS = "state.pt", "state.previous.pt"


def save_state(directory: Path, state: Mapping[str, Any]) -> None:
    """Write ``state.pt``, keeping the one before as ``state.previous.pt``."""
    file = directory / STATE

    # torch.save on a full disk raises whatever its destructors run into; a plain write says what is wrong.
    content = io.BytesIO()
    torch.save(dict(state), content)

    def write(part: Path) -> None:
        part.write_bytes(content.getbuffer())
        if file.exists():
            file.replace(directory / PREVIOUS)

    write_whole(file, write)


def load_state(directory: Path, identity: Mapping[str, Any], epochs: int) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest state of a cell that fits.

    Args:
        directory: the cell's.
        identity: what the state must have been made with; it is compared with the state's own ``"identity"``.
        epochs: the most epochs it may have behind it.

    Returns:
        The state, or ``None``; and for each state that was passed over one line that says why.
    """
    refused = []
    for file in (directory / STATE, directory / PREVIOUS):
        if not file.exists():
            continue
        try:
            _check_intact(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
            known = dict.fromkeys([*identity, *state["identity"]])
            differing = [key for key in known if state["identity"].get(key) != identity.get(key)]
            done = len(state["training"]["records"])
        except Exception:  # a broken file can make its readers raise anything
            refused.append(f"{file}: damaged, passed over")
            continue
        if differing:
            refused.append(f"{file}: made with other {', '.join(differing)}, passed over")
        elif done > epochs:
            refused.append(f"{file}: has {done} epochs behind it, only {epochs} are wanted, passed over")
        else:
            return state, refused
    return None, refused


def _check_intact(file: Path) -> None:
    """Compare all of a state's bytes with their checksums, which torch.load doesn't.

    Raises:
        ValueError: if one differs.
    """
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")


def has_state(directory: Path) -> bool:
    """Whether a cell has left a state; whether it fits is told by ``load_state`` alone."""
    return any((directory / name).exists() for name in (STATE, PREVIOUS))


def drop_previous(directory: Path) -> None:
    """Remove the state before the last, of a cell that is finished."""
    (directory / PREVIOUS).unlink(missing_ok=True)
