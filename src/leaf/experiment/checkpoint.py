"""The state of a cell in training, on disk: what a killed job, a longer run or lost outputs go on from."""

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


def load_state(directory: Path, wanted: Identity) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest state of a cell that training can go on from.

    Args:
        directory: the cell's.
        wanted: the identity of the results that are to be made.

    Returns:
        The state, or ``None``; and a line for each state that cannot be used, with the reason.
    """
    refused = []
    for file in (directory / STATE, directory / PREVIOUS):
        if not file.exists():
            continue
        try:
            _check_intact(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
            obstacles = wanted.obstacles(_identity(state["identity"]), len(state["training"]["records"]))
        except Exception:  # a broken file can make its readers raise anything
            refused.append(f"{file}: damaged, passed over")
            continue
        if not obstacles:
            return state, refused
        refused.append(f"{file}: made with {', '.join(obstacles)}, passed over")
    return None, refused


def _identity(values: dict[str, Any]) -> Identity:
    """The identity in a state, also in the layout of commit 2790cbb: without epochs, guests as digests."""
    if "epochs" not in values["settings"]:
        values = {**values, "guests": {digest: digest for digest in values.get("guests", [])}}
    return Identity(**values)


def _check_intact(file: Path) -> None:
    """Compare all of a state's bytes with their checksums, which torch.load doesn't.

    Raises:
        ValueError: if one differs.
    """
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")


def drop_previous(directory: Path) -> None:
    """Remove the state before the last, of a cell that is finished."""
    (directory / PREVIOUS).unlink(missing_ok=True)
