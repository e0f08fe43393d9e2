"""Plugins: Python files of a user that register activations, networks or data sets. The configuration lists the files.

A plugin extends the registries ``ACTIVATIONS``, ``NETWORKS`` and ``DATASETS``, as the package itself does. The SHA-256
of its file is part of the identity of the cells that use it.
"""

import hashlib
import json
import sys
import traceback
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
"""Registries that plugins can extend, by the field of a cell that takes their names."""


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin.

    Attributes:
        file: its path in the configuration.
        sha256: SHA-256 of the file.
        registered: the field and the name of each registered object.
    """

    file: str
    sha256: str
    registered: frozenset[tuple[str, str]]


_loaded: dict[Path, Plugin] = {}


def load_plugins(files: Iterable[str]) -> None:
    """Load plugins. Load a plugin again only if its file has changed.

    Args:
        files: paths, absolute or relative to the working directory.

    Raises:
        UserError: if a file cannot be read or run, registers nothing, or registers an invalid object. The message names
            the file.
    """
    for file in files:
        try:
            source, place = Path(file).read_bytes(), Path(file).resolve()
        except FileNotFoundError:
            raise UserError(f"plugin {file}: not found; paths are relative to the working directory") from None
        except OSError as error:
            raise UserError(f"plugin {file}: {error}") from None
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
    """Run a plugin file and return its registrations. On an error, restore the registries."""
    before = {field: dict(registry) for field, registry in REGISTRIES.items()}
    module = ModuleType(f"leaf_plugin_{Path(file).stem}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        # not imported, since Python may then run a cached older version, with another digest
        exec(compile(source, file, "exec"), vars(module))
        registered = [
            (field, name) for field, registry in REGISTRIES.items() for name in registry if name not in before[field]
        ]
        for field, registry in REGISTRIES.items():
            for name, thing in before[field].items():
                if registry.get(name) is not thing:
                    raise UserError(f"removes the {field} {name!r}, which it did not register")
        if not registered:
            raise UserError("registers nothing; expected an entry in ACTIVATIONS, NETWORKS or DATASETS")
    except (Exception, SystemExit) as error:
        for field, registry in REGISTRIES.items():
            registry.data = before[field]
        raise UserError(f"plugin {file}: {in_a_line(error, file)}") from None
    return registered


def in_a_line(error: BaseException, file: str) -> str:
    """Describe an error in one line, with its line number in the plugin's file if it was raised there."""
    if isinstance(error, UserError):
        return str(error)
    trace = traceback.walk_tb(error.__traceback__)
    lines = [getattr(error, "lineno", None), *(line for frame, line in trace if frame.f_code.co_filename == file)]
    where = f" (line {lines[-1]})" if lines[-1] else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def plugins_of(cell: Cell) -> dict[str, str]:
    """Return the SHA-256 of each plugin that a cell uses, by the plugin's path in the configuration."""
    fields = vars(cell).items()
    return {plugin.file: plugin.sha256 for plugin in _loaded.values() if plugin.registered.intersection(fields)}


def read_settings(text: str) -> Settings:
    """Parse the result of ``identity.settings_json``, and load its plugins.

    Raises:
        UserError: if the text is not JSON of this form, or a plugin's file has changed since it was made.
    """
    try:
        values = json.loads(text)
        plugins: dict[str, str] = dict(values.pop("plugins", {}))
        settings = Settings(**values)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"--settings {text!r}: {error}; expected JSON such as {Settings().to_json()}") from None
    load_plugins(plugins)
    for file, digest in plugins.items():
        if (found := _loaded[Path(file).resolve()].sha256) != digest:
            raise UserError(f"plugin {file}: has changed since the job was created (SHA-256 {found}, not {digest})")
    return settings
