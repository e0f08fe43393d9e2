# The targets of the command line, checked when all rules are known: Snakemake answers a misspelt one with a bare
# MissingRuleException.

from leaf.workflow import check_targets

try:
    check_targets(PLAN.config, workflow)
except UserError as error:
    raise WorkflowError(str(error))
