"""Plugins: Python files of a user that register activations, networks or data sets. The configuration names the files.

A plugin uses the registries ``ACTIVATIONS``, ``NETWORKS`` and ``DATASETS``, as the package does. The SHA-256 of its
file is part of the identity of the cells that use it.
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
"""The registries that plugins can extend, by the cell's field that takes their names."""


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin.

    Attributes:
        file: its path as the configuration gives it.
        sha256: SHA-256 of the file.
        registered: the field and the name of each registered object.
    """

    file: str
    sha256: str
    registered: frozenset[tuple[str, str]]


_loaded: dict[Path, Plugin] = {}


def load_plugins(files: Iterable[str]) -> None:
    """Load plugins. A loaded plugin is loaded again only if its file has changed.

    Args:
        files: paths, absolute or relative to the working directory.

    Raises:
        UserError: if a file cannot be read or run, or registers nothing or something invalid; the message names it.
    """
    for file in files:
        try:
            source, place = Path(file).read_bytes(), Path(file).resolve()
        except OSError as error:
            reason = "not found; its path counts from the working directory"
            raise UserError(f"plugin {file}: {reason if isinstance(error, FileNotFoundError) else error}") from None
        digest = hashlib.sha256(source).hexdigest()
        if place in _loaded and _loaded[place].sha256 == digest:
            continue
        _unload(place)
        _loaded[place] = Plugin(file, digest, frozenset(_run(file, source)))


def unload_plugins() -> None:
    """Unload all plugins and remove their registrations."""
    for place in list(_loaded):
        _unload(place)


def _unload(place: Path) -> None:
    if plugin := _loaded.pop(place, None):
        for field, name in plugin.registered:
            REGISTRIES[field].pop(name, None)


def _run(file: str, source: bytes) -> list[tuple[str, str]]:
    """Run a plugin file and return its registrations. If it fails, the registries are restored."""
    before = {field: dict(registry) for field, registry in REGISTRIES.items()}
    module = ModuleType(f"leaf_plugin_{Path(file).stem}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        # Python's import may run a cached older version; the digest must be that of the code that runs.
        exec(compile(source, file, "exec"), vars(module))
        registered = [
            (field, name) for field, registry in REGISTRIES.items() for name in registry if name not in before[field]
        ]
        for field, registry in REGISTRIES.items():
            for name in before[field]:
                if registry.get(name) is not before[field][name]:
                    raise UserError(f"removes the {field} {name!r}, which it did not register")
        if not registered:
            raise UserError("registers nothing; expected an entry in ACTIVATIONS, NETWORKS or DATASETS")
    except (Exception, SystemExit) as error:
        for field, registry in REGISTRIES.items():
            registry.data = before[field]
        raise UserError(f"plugin {file}: {in_a_line(error, file)}") from None
    return registered


def in_a_line(error: BaseException, file: str) -> str:
    """Describe an error in one line, with the line number if it was raised in the plugin's file."""
    if isinstance(error, UserError):
        return str(error)
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == file else line
        trace = trace.tb_next
    where = f" (line {line})" if line else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def plugins_of(cell: Cell) -> dict[str, str]:
    """The SHA-256 of each plugin that a cell uses, by its path in the configuration."""
    fields = vars(cell).items()
    return {plugin.file: plugin.sha256 for plugin in _loaded.values() if plugin.registered.intersection(fields)}


def read_settings(text: str) -> Settings:
    """Read the settings that ``identity.settings_json`` wrote, and load their plugins.

    Raises:
        UserError: if the text is not such JSON, or a plugin's file has changed since.
    """
    try:
        values = json.loads(text)
        plugins: dict[str, str] = dict(values.pop("plugins", {}))
    except (ValueError, TypeError, AttributeError):
        return Settings.from_json(text)  # raises the error that describes the text
    load_plugins(plugins)
    for file, digest in plugins.items():
        found = _loaded[Path(file).resolve()].sha256
        if found != digest:
            raise UserError(f"plugin {file}: has changed since the job was created (SHA-256 {found}, not {digest})")
    return Settings.from_json(json.dumps(values))
