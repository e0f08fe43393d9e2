# One job trains one cell.


rule train:
    input:
        # A data set has one right content, and the job looks at that, not at the file's age.
        ancient(dataset_file("{dataset}")),
        parent_model,
    output:
        # Nothing is deleted before the job has looked: what is current is kept, a state is gone on from.
        update([cell_file(name) for name in OUTPUTS]),
    log:
        f"logs/train/{CELL}.log",
    threads: 1
    resources:
        mem_mb=lambda wildcards: memory_mb(CONFIG.scales[wildcards.scale].settings),
        runtime=lambda wildcards: minutes(
            cell_of(wildcards), CONFIG.scales[wildcards.scale].settings
        ),
        # How many cells may share a machine's GPUs: bounded in profiles/gpu.
        gpu_cells=1,
    params:
        cell=CELL_PATTERN,
        settings=settings,
        # It takes the outputs too, so that Snakemake reruns nothing when it changes: a state is only a cache.
        continues=lambda wildcards, output: continued_scale(wildcards.scale),
    shell:
        "exec leaf train {params.cell} --scale {wildcards.scale} --settings {params.settings:q} {params.continues}"
        f" {EXECUTION}"
        " --threads {threads} > {log} 2>&1"
