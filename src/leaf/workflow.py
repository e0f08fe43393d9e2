"""The cells, files, parameters and commands of the workflow's rules, derived from a configuration.

Functions of ``wildcards`` are input functions or parameters of rules. The wildcards are ``scale`` and those of a cell
(``leaf.experiment.cells.CELL_PATTERN``) or of a product (``leaf.analysis.products``).
"""

import csv
import hashlib
import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaf.analysis.digest import digest
from leaf.analysis.layout import PAGE, RECORDS, REPORTS
from leaf.analysis.product import Group, Product
from leaf.analysis.products import PRODUCTS, TABLES, by_group, taken_names
from leaf.experiment.cells import CELL_PATTERN, RESULTS, Cell, sort_cells
from leaf.experiment.config import Config, check_config, read_strictly
from leaf.experiment.costs import memory_mb, minutes
from leaf.experiment.datasets import DATASETS
from leaf.experiment.errors import UserError
from leaf.experiment.identity import settings_json
from leaf.experiment.project import SHIPPED
from leaf.experiment.records import TRAINING_VERSION
from leaf.names import ACTIVATIONS

RULES = ("all", "collect_partial", "fetch", "partial", "remaining", "train", *(group.rule for group in by_group()))
"""Names of the workflow's rules, without those of the experiments."""

REPORT = f"{REPORTS}/{{scale}}"
PARTIAL = f"{REPORT}/partial"


def check_names(config: Config) -> Config:
    """Return ``config`` if its names collide with no rule or file.

    Raises:
        UserError: if a name is taken.
    """
    rules = dict.fromkeys(RULES, "the workflow has a rule of this name")
    scales = {name: f"{REPORTS}/{name} is taken" for name in ("shipped", "benchmark", "partial")}
    for kind, names, taken in (
        ("experiments", config.experiments, rules | taken_names("experiment")),
        ("scales", config.values["scales"], scales),
        ("datasets", DATASETS, taken_names("dataset")),
    ):
        if name := next((name for name in names if name in taken), None):
            raise UserError(f"{kind}.{name}: {taken[name]}; give your {kind[:-1]} another name")
    return config


def run_file(cell: Cell, scale: str) -> str:
    """A cell's ``run.json``, which is written last."""
    return f"{cell.directory(scale)}/run.json"


@dataclass(frozen=True)
class Plan:
    """Everything that the rules need from a configuration."""

    config: Config

    @classmethod
    def of(cls, values: Mapping[str, Any], files: Iterable[Path | str]) -> "Plan":
        """Check a configuration and make its plan.

        Args:
            files: those that Snakemake has read the values from. Its loader takes the last of two equal keys.

        Raises:
            UserError: with one line that names the first mistake.
        """
        read_strictly(files)
        return cls(check_names(check_config(values)))

    # --- what a cell's job needs ---

    def parent_model(self, wildcards: Any) -> list[str]:
        """The weights that a cell starts from, if it takes over another cell's network."""
        (cell,) = self.cells(wildcards)
        return [f"{cell.parent.directory(wildcards.scale)}/model.safetensors"] if cell.parent else []

    def memory_mb(self, wildcards: Any) -> int:
        """The memory that a cell's job requests, in MB."""
        (cell,) = self.cells(wildcards)
        return memory_mb(cell, self.config.scales[wildcards.scale].settings)

    def minutes(self, wildcards: Any) -> int:
        """The time that a cell's job requests, in minutes."""
        (cell,) = self.cells(wildcards)
        return minutes(cell, self.config.scales[wildcards.scale].settings)

    def continues(self, wildcards: Any, output: Any) -> str:
        """The option that names the scale whose states a scale's cells resume from, if there is one.

        It takes the outputs too, so that Snakemake reruns nothing when it changes: a state is only a cache.
        """
        continues = self.config.scales[wildcards.scale].continues
        return f"--continues {continues}" if continues else ""

    @property
    def execution(self) -> str:
        """The options of ``leaf train`` for device, precision, checkpoints and trackers.

        They are no parameters of the rule, since they do not change results.
        """
        values = self.config.values
        checkpoint, tracking = values["checkpoint"], in_shell(values["tracking"])
        return (
            f"--device {values['device']} --precision {values['precision']} --checkpoint-epochs {checkpoint['epochs']}"
            f" --checkpoint-minutes {checkpoint['minutes']} --tracking {tracking}"
        )

    # --- the cells that wildcards select ---

    def cells(self, wildcards: Any) -> list[Cell]:
        """The cell that the wildcards name, or the cells of an experiment, or those of a report."""
        fields = dict(wildcards.items())
        scale = fields.pop("scale")
        if not fields:
            return sort_cells([*self.config.cells(scale=scale), *self._finished_beyond_all(scale)])
        if "experiment" not in fields:
            return [Cell.parse(CELL_PATTERN.format(**fields))]
        cells = self.config.cells([fields.pop("experiment")], scale)
        return [cell for cell in cells if all(getattr(cell, field) == value for field, value in fields.items())]

    def runs(self, wildcards: Any) -> list[str]:
        """The ``run.json`` files of those cells; of a whole scale, those of the target ``all``."""
        scale = wildcards.scale
        whole = set(dict(wildcards.items())) == {"scale"}
        cells = self.config.cells(scale=scale) if whole else self.cells(wildcards)
        return [run_file(cell, scale) for cell in cells]

    def names(self, wildcards: Any) -> list[str]:
        """The names of those cells."""
        return [cell.name for cell in self.cells(wildcards)]

    def settings(self, wildcards: Any) -> str:
        """Settings and plugins of those cells as canonical JSON; a change retrains them."""
        return settings_json(self.config.scales[wildcards.scale].settings, self.cells(wildcards))

    def beyond_all(self, wildcards: Any) -> str:
        """A digest of the ``run.json`` files of a report's cells that are not inputs."""
        return _content(Path(run_file(cell, wildcards.scale)) for cell in self._finished_beyond_all(wildcards.scale))

    def _finished_beyond_all(self, scale: str) -> list[Cell]:
        """The finished cells of the experiments that are not in ``all``."""
        in_all = set(self.config.cells(scale=scale))
        others = (cell for cell in self.config.cells(self.config.experiments, scale) if cell not in in_all)
        return [cell for cell in others if Path(run_file(cell, scale)).exists()]

    # --- products ---

    def title(self, wildcards: Any) -> str:
        """An experiment's title in the report."""
        return str(self.config.experiments[wildcards.experiment]["title"])

    def formats(self, product: Product) -> tuple[str, ...]:
        """The file formats of a product."""
        return product.formats or (self.config.values["figure_format"],)

    def files(self, product: Product, directory: str = REPORT) -> list[str]:
        """The files of a product, with wildcards; what the report shows is the last."""
        first = ("rst",) if product.on_first_page and directory == REPORT else ()
        return [f"{directory}/{product.path}.{suffix}" for suffix in (*first, *self.formats(product))]

    def experiment_files(self, experiments: Iterable[str], scale: str) -> list[str]:
        """All tables, figures and cells of experiments. With the cells as targets, missing ones are trained again."""
        found, products = [], [product for product in PRODUCTS if product.group.wildcards]
        for experiment, cell in ((name, cell) for name in experiments for cell in self.config.cells([name], scale)):
            found.append(run_file(cell, scale))
            place = {"experiment": experiment, "form": cell.form, **vars(cell)}
            learns = ACTIVATIONS[cell.activation].adaptive
            found += [
                f"{REPORTS}/{scale}/{path}.{suffix}"
                for product in products
                if learns or not product.group.of_one_cell
                for path in [product.path.format(**place)]
                for suffix in self.formats(product)
            ]
        return list(dict.fromkeys(found))

    def report_files(self, scale: str) -> list[str]:
        """The tables and figures of the whole report."""
        products = (product for product in PRODUCTS if not product.group.wildcards)
        return [file.format(scale=scale) for product in products for file in self.files(product)]

    def log(self, group: Group) -> str:
        """The log of the rule that makes a group."""
        return "/".join(["logs", group.rule, "{scale}", *(f"{{{name}}}" for name in group.wildcards)]) + ".log"

    def runs_of(self, group: Group) -> Any:
        """The input of a group's rule: the ``run.json`` files of its cells."""
        if group.of_one_cell:
            return f"{RESULTS}/{{scale}}/{CELL_PATTERN}/run.json"
        return self.runs if group.of_cells else []

    def parameters(self, group: Group) -> dict[str, Any]:
        """The parameters of a group's rule: its shell command, and the values whose change makes the products again.

        The command takes the outputs too, so that Snakemake compares the others alone.
        """
        products = by_group()[group]
        found: dict[str, Any] = {"made_with": digest(products)}
        if group.of_cells:
            found |= {"cells": [CELL_PATTERN] if group.of_one_cell else self.names, "settings": self.settings}
        if group.of_cells and not group.wildcards:
            found["beyond_all"] = self.beyond_all
        if any(product.statistics for product in products):
            found["statistics"] = json.dumps(self.config.values["statistics"], sort_keys=True)

        def command(wildcards: Any, output: Any) -> str:
            words = ["leaf", products[0].kind]
            if group.of_cells:
                words += [*self.names(wildcards), "--scale", wildcards.scale, "--settings", self.settings(wildcards)]
            if "statistics" in found:
                words += ["--statistics", found["statistics"]]
            for product in products:
                files = getattr(output, product.name)
                words += [f"--{product.name}", *([files] if isinstance(files, str) else files)]
            return shlex.join(words)

        return {**found, "command": command}

    # --- records ---

    @property
    def partial_files(self) -> list[str]:
        """The files that collecting and analysing records makes for any experiments."""
        tables = (table for table in TABLES.values() if not table.group.wildcards)
        made = [file for table in tables for file in self.files(table, PARTIAL)]
        return [*(f"{PARTIAL}/{name}" for name in (*RECORDS, PAGE)), *made]

    def existing_runs(self, wildcards: Any) -> str:
        """A digest of all finished cells' ``run.json`` files."""
        return _content(sorted((RESULTS / wildcards.scale).rglob("run.json")))

    def runs_without_record(self, scale: str) -> list[str]:
        """The ``run.json`` files of the cells that have no results in ``reports/shipped``, which is of the scale paper.

        They are of the target ``all``, and of the experiments beyond it that have been begun.
        """
        file, rows = SHIPPED / RECORDS[0], []
        if scale == "paper" and file.exists():
            with file.open(newline="") as opened:
                rows = list(csv.DictReader(opened))
        recorded = {row["cell"] for row in rows if row["training_version"] == str(TRAINING_VERSION)}
        begun = {name for row in rows for name in row["experiments"].split()}
        wanted = [name for name in self.config.experiments if name in self.config.in_all or name in begun]
        return [run_file(cell, scale) for cell in self.config.cells(wanted, scale) if cell.name not in recorded]


def partial_digest(wildcards: Any) -> str:
    """The digest of what the analysis of collected records makes."""
    return digest(PRODUCTS, "leaf.analysis.analyse")


def in_shell(value: Any) -> str:
    """A value as JSON for a rule's shell command: quoted, and with doubled braces for Snakemake's formatting."""
    return shlex.quote(json.dumps(value)).replace("{", "{{").replace("}", "}}")


def _content(files: Iterable[Path]) -> str:
    """A digest of the existing ones of some files, which cannot be inputs since all of them may be missing."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.exists())).hexdigest()


def check_targets(config: Config, workflow: Any) -> None:
    """Check the targets of Snakemake's command line. Snakemake itself only reports a MissingRuleException.

    Args:
        workflow: Snakemake's ``Workflow``, with all rules.

    Raises:
        UserError: if there is no such target.
    """
    from snakemake.cli import get_argument_parser

    if Path(sys.argv[0]).stem not in ("snakemake", "__main__"):
        return  # another program's command line
    rules = [rule.name for rule in workflow.rules if not rule.has_wildcards()]

    def is_made(file: str) -> bool:
        return any(rule.is_producer(file) for rule in workflow.rules)

    for target in get_argument_parser().parse_known_args(sys.argv[1:])[0].targets:
        config.check_target(target, rules, is_made)
