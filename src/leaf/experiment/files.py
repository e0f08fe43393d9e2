"""Atomic writing of files: a file appears complete or not at all."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import safetensors

from leaf.experiment.errors import UserError

PART = ".{stem}.{writer}.part{suffix}"
"""Name of a file while it is being written, in the directory of the final file."""


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically: to a temporary file in the same directory, flushed to disk and renamed to ``file``.

    Args:
        file: the final path; its directory is created if needed.
        write: called with the path of the temporary file. If it raises, ``file`` remains unchanged.

    Raises:
        UserError: if the file cannot be written, for example on a full disk or in a read-only directory.
    """
    # Some writers choose the format by the suffix. The token distinguishes concurrent writers, also on several hosts.
    part = file.with_name(PART.format(stem=file.stem, writer=secrets.token_hex(4), suffix=file.suffix))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        permissions = part.stat().st_mode  # from the user's umask; some writers would make the file private
        write(part)
        part.chmod(permissions)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{file} cannot be written: {error}") from None
    finally:
        with contextlib.suppress(OSError):  # already renamed, or the directory does not exist
            part.unlink()


def remove_parts(directory: Path) -> None:
    """Remove the temporary files of killed writers. No other process may be writing to the directory."""
    for part in directory.glob(PART.format(stem="*", writer="*", suffix="*")):
        part.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write text atomically, in UTF-8."""
    write_whole(file, lambda part: part.write_text(text, encoding="utf-8"))
