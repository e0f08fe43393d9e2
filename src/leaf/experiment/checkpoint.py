"""A cell's checkpoint ("state"): training resumes from it when interrupted, extended, or if outputs are lost."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from leaf.experiment.cells import PREVIOUS, STATE
from leaf.experiment.files import write_whole
from leaf.experiment.identity import Identity


def save_state(directory: Path, state: Mapping[str, Any]) -> None:
    """Write ``state.pt``, and keep the previous one as ``state.previous.pt``."""
    file = directory / STATE

    # On a full disk torch.save raises unrelated errors from its destructors; a plain write raises the cause.
    content = io.BytesIO()
    torch.save(dict(state), content)

    def write(part: Path) -> None:
        part.write_bytes(content.getbuffer())
        if file.exists():
            file.replace(directory / PREVIOUS)

    write_whole(file, write)


def load_state(directory: Path, wanted: Identity) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest state of a cell that training can resume from.

    Args:
        directory: the cell's directory.
        wanted: the identity of the results to make.

    Returns:
        The state, or ``None`` if there is none that fits; and one line for each rejected state, with the reason.
    """
    refused = []
    for file in (directory / STATE, directory / PREVIOUS):
        if not file.exists():
            continue
        try:
            _check_intact(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
            obstacles = wanted.obstacles(_identity(state["identity"]), len(state["training"]["records"]))
        except Exception:  # the readers of a damaged file may raise any error
            refused.append(f"{file}: damaged, passed over")
            continue
        if not obstacles:
            return state, refused
        refused.append(f"{file}: made with {', '.join(obstacles)}, passed over")
    return None, refused


def _identity(values: dict[str, Any]) -> Identity:
    """The identity in a state. Also reads the layout of commit 2790cbb: without epochs, plugin digests as a list."""
    if "epochs" not in values["settings"]:
        values = {**values, "guests": {digest: digest for digest in values.get("guests", [])}}
    return Identity.from_json(values)


def _check_intact(file: Path) -> None:
    """Verify the checksums of all parts of a state, which ``torch.load`` does not.

    Raises:
        ValueError: if a part is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")
