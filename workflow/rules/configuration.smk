# Read and check the configuration. The other rules use it through PLAN.

from leaf.experiment.cells import CHOICES, field_pattern
from leaf.experiment.config import default_files, with_defaults
from leaf.workflow import Plan

for file in [] if IS_PART else default_files():

    configfile: file


# The `config:` of a module may omit keys.
config = with_defaults(config)

try:
    PLAN = Plan.of(config, workflow.configfiles)
except UserError as error:
    raise WorkflowError(str(error))
config.update(PLAN.config.values)  # adds default values


wildcard_constraints:
    **{field: field_pattern(field) for field in CHOICES},
    scale="|".join(PLAN.config.scales),
    experiment="|".join(PLAN.config.experiments),
    seed=r"\d+",
