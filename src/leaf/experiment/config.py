"""The configuration: read, merged, checked, and expanded into scales and cells."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from leaf.experiment.cells import CHOICES, Cell, check_result_path, expand, sort_cells
from leaf.experiment.errors import UserError
from leaf.experiment.guests import load_guests
from leaf.experiment.scales import Scale, resolve_scales

CONFIG = Path("config.yaml")
SCHEMA = Path("workflow/schemas/config.schema.yaml")


@dataclass(frozen=True)
class Config:
    """A checked configuration."""

    values: Mapping[str, Any]

    @property
    def scale(self) -> str:
        """The name of the chosen scale."""
        return self.values["scale"]

    @cached_property
    def scales(self) -> dict[str, Scale]:
        """All scales by name, the fixed ones and the user's own."""
        return resolve_scales(self.values["scales"])

    @property
    def experiments(self) -> Mapping[str, Mapping[str, Any]]:
        """All experiments by name, as the configuration has them."""
        return self.values["experiments"]

    def cells(self, experiments: Iterable[str] | None = None, scale: str | None = None) -> list[Cell]:
        """The distinct cells of experiments at a scale, in the paper's order.

        Args:
            experiments: names of experiments; those of the target ``all`` if not given.
            scale: name of a scale; the chosen one if not given.

        Raises:
            UserError: if an experiment or scale is unknown, or asks for a cell that cannot be.
        """
        names = self.in_all if experiments is None else list(experiments)
        seeds = self.scales[check_known("scale", scale or self.scale, self.scales)].seeds
        found: list[Cell] = []
        for name in names:
            experiment = self.experiments[check_known("experiment", name, self.experiments)]
            try:
                found += expand(experiment, seeds)
            except UserError as error:
                raise UserError(f"experiments.{name}: {error}") from None
        return sort_cells(found)

    def check_target(self, target: str) -> None:
        """Check what Snakemake is asked to make, if it is an experiment or lies below ``results``.

        Raises:
            UserError: if it is no output of a cell, or the scale has too few epochs for a cell.
        """
        check_result_path(target, self.scales)
        for cell in self.cells([target]) if target in self.experiments else ():
            cell.epochs(self.scales[self.scale].settings.epochs)

    @property
    def in_all(self) -> list[str]:
        """Names of the experiments that the target ``all`` makes."""
        return [name for name, experiment in self.experiments.items() if experiment.get("in_all")]


def check_known(what: str, name: str, known: Iterable[str]) -> str:
    """``name``, if it is known.

    Raises:
        UserError: if not; the message lists what is.
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UserError(f"unknown {what} {name!r}{hint}; known: {', '.join(known)}")


def read_config(configfiles: Iterable[Path] = (), overrides: Mapping[str, Any] | None = None) -> Config:
    """``config.yaml`` of the working directory, with files and values merged over it, checked.

    Raises:
        UserError: if a file cannot be read or the result is no valid configuration.
    """
    merged: dict[str, Any] = {}
    for layer in [*(_read_yaml(file) for file in (CONFIG, *configfiles)), overrides or {}]:
        merged = _merge(merged, layer)
    return check_config(merged)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} not found; run this in the project's top-level directory") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected keys and values, found {type(content).__name__}")
    return content


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key, anything else is replaced: as Snakemake merges configurations."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def check_config(values: Mapping[str, Any]) -> Config:
    """A configuration, checked: structure, names, and that every cell it asks for can be.

    Raises:
        UserError: with one line that names the first offending key or cell and what would be right.
    """
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(values), key=lambda error: [str(part) for part in error.absolute_path])
    if errors:
        raise UserError(_explain(errors[0]))
    load_guests(values["guests"])
    config = Config(values)
    check_known("scale", config.scale, config.scales)
    for name, experiment in config.experiments.items():
        for block in experiment["cells"]:
            missing = [
                key for key in (*(f"{field}s" for field in CHOICES), "seeds") if key not in {**experiment, **block}
            ]
            if missing:
                raise UserError(
                    f"experiments.{name}: no {' and no '.join(missing)}, neither its own nor in {dict(block)}"
                )
    for scale in config.scales:
        config.cells(config.experiments, scale)
    return config


def _explain(error: jsonschema.ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "configuration"
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    if error.validator == "additionalProperties":
        instance: Any = error.instance
        known = list(schema["properties"])
        unknown = next(key for key in instance if key not in known)
        near = difflib.get_close_matches(str(unknown), known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{where}: unknown key {unknown!r}{hint}; known: {', '.join(known)}"
    if error.validator == "enum":
        return f"{where}: {error.instance!r} is not one of {', '.join(map(repr, schema['enum']))}"
    if error.validator == "type":
        expected = schema["type"] if isinstance(schema["type"], str) else " or ".join(schema["type"])
        return f"{where}: expected {expected}, found {error.instance!r}"
    return f"{where}: {error.message}"
