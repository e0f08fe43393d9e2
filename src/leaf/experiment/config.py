"""Read, merge and check the configuration, and expand it into scales and cells."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from leaf.experiment.cells import CHOICES, OUTPUTS, Cell, check_result_path, expand, sort_cells
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError, check_known
from leaf.experiment.plugins import load_plugins
from leaf.experiment.project import CONFIG
from leaf.experiment.scales import Scale, resolve_scales


@dataclass(frozen=True)
class Config:
    """A checked configuration."""

    values: Mapping[str, Any]
    _cells: dict[tuple[object, ...], list[Cell]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def scale(self) -> str:
        """The name of the chosen scale."""
        return self.values["scale"]

    @cached_property
    def scales(self) -> dict[str, Scale]:
        """All scales by name, both fixed and the user's."""
        return resolve_scales(self.values["scales"])

    @property
    def experiments(self) -> Mapping[str, Mapping[str, Any]]:
        """The configuration's experiments by name."""
        return self.values["experiments"]

    def cells(self, experiments: Iterable[str] | None = None, scale: str | None = None) -> list[Cell]:
        """Return the distinct cells of experiments at a scale, in the paper's order.

        Args:
            experiments: names of experiments. Default: those of the target ``all``.
            scale: name of a scale. Default: the configured one.

        Raises:
            UserError: if an experiment or scale is unknown, or an experiment has an invalid cell.
        """
        names = self.in_all if experiments is None else list(experiments)
        scale = check_known("scale", scale or self.scale, self.scales)
        asked = (*names, scale)
        if asked not in self._cells:
            found = [self._expanded(name, scale) for name in names]
            self._cells[asked] = found[0] if len(found) == 1 else sort_cells(chain.from_iterable(found))
        return list(self._cells[asked])

    def _expanded(self, name: str, scale: str) -> list[Cell]:
        experiment = self.experiments[check_known("experiment", name, self.experiments)]
        try:
            cells = expand(experiment, self.scales[scale].seeds)
            for dataset in sorted({cell.dataset for cell in cells}):
                self.scales[scale].settings.check_images(dataset, DATASETS[dataset].images, f"scale {scale}: ")
        except UserError as error:
            raise UserError(f"experiments.{name}: {error}") from None
        return cells

    def check_target(self, target: str, rules: Iterable[str], makes: Callable[[str], bool]) -> None:
        """Check a target of Snakemake.

        Args:
            target: a rule's name, or a file relative to the working directory.
            rules: the names of all rules that are targets.
            makes: returns ``True`` for a file that a rule makes.

        Raises:
            UserError: if there is no such target, or the scale has too few epochs for one of its cells.
        """
        if target in rules:
            for cell in self.cells([target]) if target in self.experiments else ():
                cell.epochs(self.scales[self.scale].settings.epochs)
            return
        path = os.path.relpath(target)
        check_result_path(path, self.scales)
        if os.path.isabs(target) and makes(path):
            raise UserError(f"target {target}: name the file by its path from the working directory: {path}")
        if makes(path):
            return
        if target in self.scales:
            raise UserError(f"target {target!r} is a scale: choose it with --config scale={target}")
        if path.split(os.sep)[0] in CHOICES["network"]:
            directory, _, name = path.rpartition("/")
            cell = Cell.parse(directory if name in OUTPUTS else path)
            asked = cell.directory(self.scale) / (name if name in OUTPUTS else OUTPUTS[-1])
            raise UserError(f"target {target!r} is a cell: name a file of its results, such as {asked}")
        check_known("target", target.rstrip("/"), [*rules, "or a file below results/ or reports/"])
        raise UserError(f"target {target!r}: ends with a slash; write {target.rstrip('/')}")

    @property
    def in_all(self) -> list[str]:
        """Names of the experiments that the target ``all`` makes."""
        return [name for name, experiment in self.experiments.items() if experiment.get("in_all")]


def default_files() -> list[Path]:
    """Return the default configuration and, if it is another file, ``config.yaml`` of the working directory."""
    own = Path(CONFIG.name)
    return [CONFIG, own] if own.exists() and own.resolve() != CONFIG else [CONFIG]


def read_config(configfiles: Iterable[Path] = (), overrides: Mapping[str, Any] | None = None) -> Config:
    """Read the default files, merge ``configfiles`` and then ``overrides`` over them, and check the result.

    Raises:
        UserError: if a file cannot be read or the configuration is invalid.
    """
    merged: dict[str, Any] = {}
    for layer in [*read_strictly([*default_files(), *configfiles]), overrides or {}]:
        merged = _merge(merged, layer)
    return check_config(merged)


def read_strictly(files: Iterable[Path | str]) -> list[dict[str, Any]]:
    """Read configuration files.

    Snakemake's loader accepts duplicate keys and uses the last one, so the Snakefile calls this for each of its files.

    Raises:
        UserError: if a file cannot be read, is not a YAML mapping or has a duplicate key.
    """
    found = []
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except FileNotFoundError:
            needed = "; the experiment needs a checkout with the package installed from it (pip install -e)"
            raise UserError(f"{file} not found{needed if file == CONFIG else ''}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: {error}; save it as UTF-8") from None
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}; expected a YAML file") from None
        content = parse_yaml(text, str(file))
        if not isinstance(content, dict):
            raise UserError(f"{file}: expected keys and values, found {type(content).__name__}")
        found.append(content)
    return found


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader that also rejects duplicate keys."""

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line, same = key.start_mark.line + 1, (key.tag, key.value)
            if same in lines:
                raise yaml.YAMLError(f"duplicate key {key.value!r} in lines {lines[same]} and {line}")
            lines[same] = line
        return node


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML or JSON.

    Args:
        source: name of the text in error messages.

    Raises:
        UserError: if the text is not valid YAML or has a duplicate key.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{source}: {' '.join(str(error).split())}") from None


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values over the default configuration, without checking them."""
    return _merge(read_strictly([CONFIG])[0], values)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key and replace other values, as Snakemake does."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def check_config(values: Mapping[str, Any]) -> Config:
    """Check a configuration and fill in its defaults: keys, types, limits, names, and all cells.

    Raises:
        UserError: with one line that names the first invalid key or cell and the valid values.
    """
    from leaf.experiment.schema import validated  # here, since it imports pydantic

    config = Config(validated(values))
    load_plugins(config.values["plugins"])
    check_known("scale", config.scale, config.scales)
    for name, experiment in config.experiments.items():
        for block in experiment["cells"]:
            needed = (*(f"{field}s" for field in CHOICES), "seeds")
            if missing := [key for key in needed if key not in {**experiment, **block}]:
                absent = " and no ".join(missing)
                raise UserError(f"experiments.{name}: no {absent}, neither in the experiment nor in {block}")
    config.cells(config.experiments)
    return config
