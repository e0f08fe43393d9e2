# What ran, and a verdict on each of the paper's claims, from the cells of the paper's four experiments.


rule claims:
    input:
        lambda wildcards: [
            f"{cell.directory(wildcards.scale)}/run.json"
            for cell in CONFIG.cells(scale=wildcards.scale)
        ],
    output:
        overview=table_files(
            "overview",
            "what ran",
            caption="../report/overview_table.rst",
            category="Overview",
        ),
        claims=table_files(
            "claims",
            "verdicts on the paper's claims",
            caption="../report/claims_table.rst",
            category="Overview",
        ),
        # What the page that the report opens on shows of them.
        short=[f"{REPORT}/overview.rst", f"{REPORT}/claims.rst"],
    log:
        "logs/claims/{scale}.log",
    localrule: True
    params:
        cells=lambda wildcards: [
            cell.name for cell in CONFIG.cells(scale=wildcards.scale)
        ],
        settings=lambda wildcards: settings_json(
            CONFIG.scales[wildcards.scale].settings,
            CONFIG.cells(scale=wildcards.scale),
        ),
        made_with=digest(
            "claims",
            "claims.yaml",
            "published.csv",
            "tables",
            "statistics",
            "forms",
            "matching",
            "collection",
        ),
    shell:
        "leaf table {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --overview {output.overview} {output.short[0]} --claims {output.claims} {output.short[1]} > {log} 2>&1"
