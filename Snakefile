# The configuration, the rules by subject, and the targets.

import gc

from snakemake.utils import min_version

from leaf.experiment.errors import UserError
from leaf.workflow import check_targets

min_version("9.27")

# A grid has many thousands of jobs, which live until the end: frequent garbage collections would dominate the planning.
gc.set_threshold(100_000)


# As a module of another workflow: targets and configuration files belong to that workflow.
IS_PART = workflow.snakefile != workflow.main_snakefile


report: "workflow/report/workflow.rst"


# Every rule runs in Snakemake's own environment (environment.yml, requirements.lock). The linter requires a statement.
container: "none"


include: "workflow/rules/configuration.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/products.smk"
include: "workflow/rules/collection.smk"


rule all:
    default_target: True
    input:
        lambda wildcards: PLAN.experiment_files(PLAN.config.in_all, PLAN.config.scale),
        PLAN.report_files(PLAN.config.scale),
    localrule: True


for name in PLAN.config.experiments:

    rule:
        name:
            name
        input:
            lambda wildcards, name=name: PLAN.experiment_files(
                [name], PLAN.config.scale
            ),
        localrule: True


# For a misspelt target Snakemake itself only reports a MissingRuleException.
if not IS_PART:
    try:
        check_targets(PLAN.config, workflow)
    except UserError as error:
        raise WorkflowError(str(error))
