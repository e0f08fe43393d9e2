# A verdict on each of the paper's claims, from the cells of the paper's four experiments.


rule claims:
    input:
        lambda wildcards: [
            f"{cell.directory(wildcards.scale)}/run.json"
            for cell in CONFIG.cells(scale=wildcards.scale)
        ],
    output:
        f"{REPORT}/{CLAIMS_TABLE}.csv",
        f"{REPORT}/{CLAIMS_TABLE}.md",
        report(
            f"{REPORT}/{CLAIMS_TABLE}.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"table": "verdicts"},
        ),
    log:
        "logs/claims/{scale}.log",
    localrule: True
    params:
        cells=lambda wildcards: [
            cell.name for cell in CONFIG.cells(scale=wildcards.scale)
        ],
        settings=settings,
        made_with=digest(
            "claims",
            "claims.yaml",
            "published.csv",
            "statistics",
            "forms",
            "matching",
            "collection",
        ),
    shell:
        "leaf table claims {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --output {output} > {log} 2>&1"
