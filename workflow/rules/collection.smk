# Tables and figures of all existing cells; missing ones are marked.

from leaf.workflow import PARTIAL, partial_digest


rule collect_partial:
    output:
        PLAN.partial_files,
        directory(f"{PARTIAL}/tables"),
        directory(f"{PARTIAL}/figures"),
    log:
        "logs/partial/{scale}.log",
    localrule: True
    threads: 2
    params:
        config=json.dumps(config),
        directory=PARTIAL,
        runs=PLAN.existing_runs,
        made_with=partial_digest,
    shell:
        "(leaf collect --scale {wildcards.scale} --no-configfile --config {params.config:q} --output {params.directory}"
        " && leaf analyse {params.directory} --threads {threads} --no-configfile --config {params.config:q})"
        " > {log} 2>&1"


rule remaining:
    # Trains exactly the cells without a record in reports/shipped.
    input:
        lambda wildcards: PLAN.runs_without_record(PLAN.config.scale),
    localrule: True


rule partial:
    input:
        expand(rules.collect_partial.output, scale=PLAN.config.scale),
    localrule: True
