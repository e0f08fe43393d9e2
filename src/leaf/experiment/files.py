"""Files appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import safetensors

from leaf.experiment.errors import UserError

PART = ".{stem}.{writer}.part{suffix}"
"""Name of a file that is being written, beside its final name."""


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``file``, flush it to disk and rename it to ``file``.

    Args:
        file: the final name; its directory is made if needed.
        write: called with the name to write to. If it raises, ``file`` is left as it was.

    Raises:
        UserError: if the file cannot be written: the disk is full, the directory read-only, …
    """
    # Same suffix, for writers that choose a format by it; a random part, for writers of the same file on several hosts.
    part = file.with_name(PART.format(stem=file.stem, writer=secrets.token_hex(4), suffix=file.suffix))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        permissions = part.stat().st_mode  # as the user's umask asks; some writers would make the file private
        write(part)
        part.chmod(permissions)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{file} cannot be written: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # gone already, or no such directory
            part.unlink()


def remove_parts(directory: Path) -> None:
    """Remove what killed writers left in a directory; call it only where nobody else is writing."""
    for part in directory.glob(PART.format(stem="*", writer="*", suffix="*")):
        part.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """``write_whole`` for text in UTF-8."""
    write_whole(file, lambda part: part.write_text(text, encoding="utf-8"))
