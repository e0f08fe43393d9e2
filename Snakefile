# The front door: the configuration, the rules by subject, the targets a person asks for.

from snakemake.utils import min_version

from leaf.experiment.errors import UserError
from leaf.workflow import check_targets

min_version("9.27")


# As a module of another workflow: targets and configuration files belong to that workflow.
IS_PART = workflow.snakefile != workflow.main_snakefile


report: "workflow/report/workflow.rst"


# Every rule runs in the environment that Snakemake itself runs in (environment.yml, requirements.lock), never in a
# container of its own: said here once, for the linter, which asks each rule.
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


# Snakemake would answer a misspelt target with a bare MissingRuleException.
if not IS_PART:
    try:
        check_targets(PLAN.config, workflow)
    except UserError as error:
        raise WorkflowError(str(error))
