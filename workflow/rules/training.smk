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
    params:
        cell=CELL_PATTERN,
        settings=settings,
    shell:
        "exec leaf train {params.cell} --scale {wildcards.scale} --settings {params.settings:q}"
        f" {EXECUTION}"
        " --threads {threads} > {log} 2>&1"
