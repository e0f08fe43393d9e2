"""Remove files of cells: all of them (``leaf forget``), or only the states of finished cells (``leaf prune``)."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from leaf.experiment.cells import OUTPUTS, PREVIOUS, SHOWN, STATE, Cell, has_state
from leaf.experiment.errors import DamagedError, UserError
from leaf.experiment.identity import Identity
from leaf.experiment.lock import hold, is_held
from leaf.experiment.progress import STATUS, is_training, read_progress
from leaf.experiment.runs import read_run
from leaf.experiment.scales import Settings


def forget(cells: Iterable[Cell], scale: str) -> dict[Cell, int]:
    """Remove the outputs and states of cells. The next run trains these cells again.

    Returns:
        The bytes freed for each cell.

    Raises:
        UserError: if a cell is being trained, before any file is removed; or if a file cannot be removed.
    """
    directories = {cell: cell.directory(scale) for cell in cells}
    with ExitStack() as locks:
        for directory in filter(Path.exists, directories.values()):
            progress = read_progress(directory)
            if progress and is_training(directory, progress):
                raise UserError(f"{directory}: is being trained on {progress.host}; end it, or wait for it")
            locks.enter_context(hold(directory))
        # not the lock, for which another process may be waiting
        names = (*OUTPUTS, SHOWN, STATE, PREVIOUS, STATUS)
        return {cell: _remove(directory / name for name in names) for cell, directory in directories.items()}


def prune(cells: Iterable[Cell], scale: str, settings: Settings) -> dict[Cell, int]:
    """Remove the states of cells that are finished with these settings. Only training for more epochs needs them.

    Returns:
        The bytes freed for each such cell.

    Raises:
        UserError: if a file cannot be removed.
    """
    freed = {}
    for cell in cells:
        directory = cell.directory(scale)
        if has_state(directory) and not is_held(directory):
            with hold(directory):
                try:
                    run = read_run(directory)
                except DamagedError:  # its outputs can be restored from the state
                    continue
                if run and not Identity.of(cell, scale, settings).differences(run.identity):
                    freed[cell] = _remove([directory / STATE, directory / PREVIOUS])
    return freed


def _remove(files: Iterable[Path]) -> int:
    """Remove files, and return the total size in bytes of those that existed."""
    size = 0
    for file in files:
        try:
            size += file.stat().st_size
            file.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{file} cannot be removed: {error}") from None
    return size
