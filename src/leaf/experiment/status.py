"""How far the grid is, told from files alone."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from leaf.experiment.cells import Cell
from leaf.experiment.errors import DamagedError
from leaf.experiment.guests import changed_guests
from leaf.experiment.job import is_current
from leaf.experiment.records import read_run
from leaf.experiment.scales import Settings


def summarize(cells: Iterable[Cell], scale: str, settings: Settings) -> Iterator[str]:
    """A line for every cell that is running, stale or diverged, and one with the numbers of all."""
    count: Counter[str] = Counter()
    for cell in cells:
        status, detail = _status(cell, scale, settings)
        count[status] += 1
        if detail:
            yield f"{status:9}{cell.name}: {detail}"
    yield f"{scale}: {count.total()} cells, " + ", ".join(f"{number} {status}" for status, number in count.items())


def _status(cell: Cell, scale: str, settings: Settings) -> tuple[str, str]:
    directory = cell.directory(scale)
    try:
        run = read_run(directory)
    except DamagedError as damage:
        return "damaged", str(damage)
    if run and not is_current(run, settings):
        guests = [f"{file} as it was" for file in changed_guests(run)]
        made_with = [f"training version {run['training_version']}", json.dumps(run["settings"]), *guests]
        return "stale", f"made with {' and '.join(made_with)}"
    if run and run["diverged_at"]:
        return "diverged", f"at epoch {run['diverged_at']}, first in {run['nonfinite_layer']}"
    if run:
        return "done", ""
    try:
        status = json.loads((directory / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "missing", ""
    return "running", "epoch {epoch}/{epochs}, accuracy {test_accuracy:.2%}, {seconds_left} s left".format(**status)
