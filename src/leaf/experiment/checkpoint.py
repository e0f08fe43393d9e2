"""A cell's checkpoint ("state"), from which training resumes if it was interrupted, extended, or lost its outputs."""

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
        The state, or ``None`` if none fits, and a line for each rejected state with the reason.
    """
    refused = []
    for file in (directory / STATE, directory / PREVIOUS):
        if not file.exists():
            continue
        try:
            with zipfile.ZipFile(file) as archive:
                if damaged := archive.testzip():  # torch.load does not verify the checksums
                    raise ValueError(damaged)
            state = torch.load(file, map_location="cpu", weights_only=True)
            made = state["identity"]
            if "epochs" not in made["settings"]:  # commit 2790cbb stored the plugins' digests as a list
                made = {**made, "guests": {digest: digest for digest in made.get("guests", [])}}
            obstacles = wanted.obstacles(Identity.from_json(made), len(state["training"]["records"]))
        except Exception:  # the readers of a damaged file may raise any error
            refused.append(f"{file}: damaged, skipped")
            continue
        if not obstacles:
            return state, refused
        refused.append(f"{file}: made with {', '.join(obstacles)}, skipped")
    return None, refused
