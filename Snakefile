# The configuration, the rules by subject, and the targets.

from snakemake.utils import min_version

from leaf.experiment.errors import UserError
from leaf.workflow import check_targets

min_version("9.27")


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
        [PLAN.experiment_files(name, PLAN.config.scale) for name in PLAN.config.in_all],
        PLAN.report_files(PLAN.config.scale),
    localrule: True


for name in PLAN.config.experiments:

    rule:
        name:
            name
        input:
            PLAN.experiment_files(name, PLAN.config.scale),
        localrule: True


# For a misspelt target Snakemake itself only reports a MissingRuleException.
if not IS_PART:
    try:
        check_targets(PLAN.config, workflow)
    except UserError as error:
        raise WorkflowError(str(error))
