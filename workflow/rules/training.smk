# The data sets, fetched once and verified, and the cells, each trained by one job.

import json

from leaf.experiment.cells import CELL_PATTERN, OUTPUTS, RESULTS
from leaf.experiment.datasets import dataset_file
from leaf.workflow import in_shell

# Cells are read and written below results/ in the working directory, states that no rule declares included.
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
        # Not in params: where the bytes come from changes nothing about them.
        "leaf fetch {wildcards.dataset} --no-configfile --config "
        f"{in_shell(config)} > {{log}} 2>&1"


rule train:
    input:
        # A data set has one right content, and the job looks at that, not at the file's age.
        ancient(dataset_file("{dataset}")),
        PLAN.parent_model,
    output:
        # Nothing is deleted before the job has looked: what is current is kept, a state is gone on from.
        update([f"{RESULTS}/{{scale}}/{CELL_PATTERN}/{name}" for name in OUTPUTS]),
    log:
        f"logs/train/{{scale}}/{CELL_PATTERN}.log",
    threads: 1
    resources:
        mem_mb=PLAN.memory_mb,
        runtime=PLAN.minutes,
        # How many cells may share a machine's GPUs: bounded in profiles/gpu.
        gpu_cells=1,
    params:
        cell=CELL_PATTERN,
        settings=PLAN.settings,
        continues=PLAN.continues,
    shell:
        "exec leaf train {params.cell} --scale {wildcards.scale} --settings {params.settings:q} {params.continues}"
        f" {PLAN.execution}"
        " --threads {threads} > {log} 2>&1"
