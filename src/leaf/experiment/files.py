"""Files appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``file``, flush it to disk and rename it to ``file``.

    Args:
        file: the final name; its directory is made if needed.
        write: called with the name to write to. If it raises, ``file`` is left as it was.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Same suffix, for writers that choose a format by it; the process id, for writers that don't know of each other.
    part = file.with_name(f".{file.stem}.{os.getpid()}.part{file.suffix}")
    part.touch()
    permissions = part.stat().st_mode  # as the user's umask asks; some writers would make the file private
    try:
        write(part)
        part.chmod(permissions)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """``write_whole`` for text in UTF-8."""
    write_whole(file, lambda part: part.write_text(text, encoding="utf-8"))
