# Fetch and verify the data sets, and train the cells, one job each.

import json

from leaf.experiment.cells import CELL_PATTERN, OUTPUTS, RESULTS
from leaf.experiment.datasets import dataset_file
from leaf.workflow import in_shell

# Jobs read and write below results/ in the working directory, including states that no rule declares.
if workflow.modifier.modify_path(str(RESULTS)) != str(RESULTS):
    raise WorkflowError(
        "results cannot be moved by a default storage provider or a module's prefix: leaf works in the working directory,"
        " on a file system that all jobs share (docs/cluster.md)"
    )


# A local rule: compute nodes have no network.
rule fetch:
    output:
        dataset_file("{dataset}"),
    log:
        "logs/fetch/{dataset}.log",
    localrule: True
    shell:
        # The configuration is not in params, since the source does not affect the data.
        "leaf fetch {wildcards.dataset} --no-configfile --config "
        f"{in_shell(config)} > {{log}} 2>&1"


rule train:
    input:
        # The job verifies the contents of a data set; the age of its file is irrelevant.
        ancient(dataset_file("{dataset}")),
        PLAN.parent_model,
    output:
        # The job keeps current outputs and resumes from a state, so Snakemake must not delete them first.
        update([f"{RESULTS}/{{scale}}/{CELL_PATTERN}/{name}" for name in OUTPUTS]),
    log:
        f"logs/train/{{scale}}/{CELL_PATTERN}.log",
    threads: 1
    resources:
        mem_mb=PLAN.memory_mb,
        runtime=PLAN.minutes,
        # Limits the number of concurrent cells on a machine's GPUs: see profiles/gpu.
        gpu_cells=1,
    params:
        cell=CELL_PATTERN,
        settings=PLAN.settings,
        continues=PLAN.continues,
    shell:
        "exec leaf train {params.cell} --scale {wildcards.scale} --settings {params.settings:q} {params.continues}"
        f" {PLAN.execution}"
        " --threads {threads} > {log} 2>&1"
