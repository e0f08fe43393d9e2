# Tables and figures of whatever cells exist, finished or not, with the gaps marked.

PARTIAL = f"{REPORT}/partial"


rule collect_partial:
    output:
        [f"{PARTIAL}/{name}" for name in (*RECORDS, PAGE)],
        directory(f"{PARTIAL}/tables"),
        directory(f"{PARTIAL}/figures"),
        [
            f"{PARTIAL}/{kind}.{suffix}"
            for kind in REPORT_TABLES
            for suffix in TABLE_FORMATS
        ],
    log:
        "logs/partial/{scale}.log",
    localrule: True
    threads: 2
    params:
        config=json.dumps(config),
        directory=PARTIAL,
        runs=existing_runs,
        benchmark=content([PROJECT / BENCHMARK]),
        made_with=digest("analyse", "claims.yaml", "published.csv"),
    shell:
        "(leaf collect --scale {wildcards.scale} --no-configfile --config {params.config:q} --output {params.directory}"
        " && leaf analyse {params.directory} --threads {threads} --no-configfile --config {params.config:q})"
        " > {log} 2>&1"


rule remaining:
    # To train what reports/shipped has no record of, and nothing else.
    input:
        lambda wildcards: runs_without_record(CONFIG.scale),
    localrule: True


rule partial:
    input:
        expand(rules.collect_partial.output, scale=CONFIG.scale),
    localrule: True
