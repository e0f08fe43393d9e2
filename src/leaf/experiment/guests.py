"""Guests: activations, networks and data sets of a user's own, in Python files that the configuration names.

A guest file registers what it brings in ``ACTIVATIONS``, ``NETWORKS`` or ``DATASETS``, as the package does with its
own. Its SHA-256 is part of what makes the cells that use it: a changed file is another guest.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.scales import Settings
from leaf.names import ACTIVATIONS, NETWORKS
from leaf.registry import Registry

REGISTRIES: dict[str, Registry[Any]] = {registry.kind: registry for registry in (ACTIVATIONS, NETWORKS, DATASETS)}
"""Where guests register, by the cell's field that then knows their names."""


@dataclass(frozen=True)
class Guest:
    """A guest file that was loaded: as it was named, its SHA-256, and what it registered, as (field, name)."""

    file: str
    sha256: str
    brought: frozenset[tuple[str, str]]


_present: dict[Path, Guest] = {}


def load_guests(files: Iterable[str]) -> None:
    """Run guest files, so that what they bring is known by name.

    One that was loaded already stays as it is; if its file has changed since, it is replaced.

    Args:
        files: relative to the working directory, or absolute.

    Raises:
        UserError: if a file cannot be read or run, or brings nothing or what cannot be; the message names the file.
    """
    for file in files:
        try:
            source, place = Path(file).read_bytes(), Path(file).resolve()
        except OSError as error:
            reason = "not found; its path counts from the working directory"
            raise UserError(f"guest {file}: {reason if isinstance(error, FileNotFoundError) else error}") from None
        digest = hashlib.sha256(source).hexdigest()
        if place in _present and _present[place].sha256 == digest:
            continue
        _dismiss(place)
        _present[place] = Guest(file, digest, frozenset(_run(file, source)))


def dismiss_guests() -> None:
    """Forget all guests and what they brought."""
    for place in list(_present):
        _dismiss(place)


def _dismiss(place: Path) -> None:
    if guest := _present.pop(place, None):
        for field, name in guest.brought:
            REGISTRIES[field].pop(name, None)


def _run(file: str, source: bytes) -> list[tuple[str, str]]:
    """Run a guest file, whose registrations are checked; if that fails the registries are as before."""
    before = {field: dict(registry) for field, registry in REGISTRIES.items()}
    module = ModuleType(f"leaf_guest_{Path(file).stem}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        # Not through Python's import: that may run a cached older version, and the digest must be that of what ran.
        exec(compile(source, file, "exec"), vars(module))
        brought = [
            (field, name) for field, registry in REGISTRIES.items() for name in registry if name not in before[field]
        ]
        for field, registry in REGISTRIES.items():
            for name in before[field]:
                if registry.get(name) is not before[field][name]:
                    raise UserError(f"takes the {field} {name!r} away, which it did not bring")
        if not brought:
            raise UserError("brings nothing; it should register something in ACTIVATIONS, NETWORKS or DATASETS")
    except (Exception, SystemExit) as error:
        for field, registry in REGISTRIES.items():
            registry.data = before[field]
        raise UserError(f"guest {file}: {in_a_line(error, file)}") from None
    return brought


def in_a_line(error: BaseException, file: str) -> str:
    """What went wrong and, if it did inside the guest file, in which line there."""
    if isinstance(error, UserError):
        return str(error)
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == file else line
        trace = trace.tb_next
    where = f" (line {line})" if line else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


# --- what makes a cell ------------------------------------------------------------------------------------------------


def guests_of(cell: Cell) -> dict[str, str]:
    """The SHA-256 of each guest file that a cell uses, by the file's name in the configuration."""
    return {guest.file: guest.sha256 for guest in _present.values() if guest.brought.intersection(vars(cell).items())}


def read_settings(text: str) -> Settings:
    """The settings that ``identity.settings_json`` wrote; its guests are loaded.

    Raises:
        UserError: if the text is no such JSON, or a guest's file is not the one that it was.
    """
    try:
        values = json.loads(text)
        guests: dict[str, str] = dict(values.pop("guests", {}))
    except (ValueError, TypeError, AttributeError):
        return Settings.from_json(text)  # which tells what is wrong
    load_guests(guests)
    for file, digest in guests.items():
        found = _present[Path(file).resolve()].sha256
        if found != digest:
            raise UserError(f"guest {file}: has changed since this was asked for (SHA-256 {found}, not {digest})")
    return Settings.from_json(json.dumps(values))
