# The front door: the configuration checked, the rules by subject, the targets a person asks for.

import csv
import hashlib
import importlib.resources
import json
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.utils import min_version

from leaf.analysis.layout import (
    BENCHMARK,
    DIFFERENCES_CHART,
    EVOLUTION_CHART,
    FORMS_CHART,
    INITIAL_FORMS_CHART,
    NETWORK_TABLE,
    NETWORK_TABLES,
    PAGE,
    PROGRESS_CHART,
    RECORDS,
    REPORT_TABLES,
    REPORTS,
    SUMMARY_TABLE,
    TABLE_FORMATS,
)
from leaf.experiment.cells import (
    CELL_PATTERN,
    CHOICES,
    OUTPUTS,
    RESULTS,
    Cell,
    field_pattern,
    sort_cells,
)
from leaf.experiment.config import (
    check_config,
    default_files,
    read_strictly,
    with_defaults,
)
from leaf.experiment.costs import memory_mb, minutes
from leaf.experiment.datasets import dataset_file
from leaf.experiment.errors import UserError
from leaf.experiment.identity import Identity, settings_json
from leaf.experiment.project import PROJECT, SHIPPED
from leaf.experiment.records import TRAINING_VERSION
from leaf.names import ACTIVATIONS

min_version("9.27")


# Cells are read and written below results/ in the working directory, states that no rule declares included.
if workflow.modifier.modify_path(str(RESULTS)) != str(RESULTS):
    raise WorkflowError(
        "results cannot be moved by a default storage provider or a module's prefix: leaf works in the working directory,"
        " on a file system that all jobs share (docs/cluster.md)"
    )


# As a module of another workflow: targets and configuration files belong to that workflow.
IS_PART = workflow.snakefile != workflow.main_snakefile


for file in [] if IS_PART else default_files():

    configfile: file


# The `config:` of a module may lack keys.
config = with_defaults(config)


report: "workflow/report/workflow.rst"


# Every rule runs in the environment that Snakemake itself runs in (environment.yml, requirements.lock), never in a
# container of its own: said here once, for the linter, which asks each rule.
container: "none"


try:
    read_strictly(workflow.configfiles)
    CONFIG = check_config(config)
    config.update(CONFIG.values)  # with the defaults of keys that it lacks
except UserError as error:
    raise WorkflowError(str(error))


wildcard_constraints:
    **{field: field_pattern(field) for field in CHOICES},
    scale="|".join(CONFIG.scales),
    experiment="|".join(CONFIG.experiments),
    seed=r"\d+",


include: "workflow/rules/common.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/collection.smk"


rule all:
    default_target: True
    input:
        [products(name, CONFIG.scale) for name in CONFIG.in_all],
        expand(rules.claims.output, scale=CONFIG.scale),
        expand(rules.differences_chart.output, scale=CONFIG.scale),
        expand(rules.initial_forms_chart.output, scale=CONFIG.scale),
    localrule: True


for name in CONFIG.experiments:

    rule:
        name:
            name
        input:
            products(name, CONFIG.scale),
        localrule: True


# Snakemake would answer a misspelt target with a bare MissingRuleException.
if not IS_PART:
    try:
        check_targets()
    except UserError as error:
        raise WorkflowError(str(error))
