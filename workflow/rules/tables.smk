# The paper's tables, from the cells that each of them needs.


rule summary_table:
    input:
        lambda wildcards: runs_of(wildcards),
    output:
        f"{REPORT}/{SUMMARY_TABLE}.csv",
        report(
            f"{REPORT}/{SUMMARY_TABLE}.html",
            caption="../report/summary_table.rst",
            category=title_of,
            subcategory="Tables",
            labels={
                "table": "every cell",
                "network": "{network}",
                "data set": "{dataset}",
            },
        ),
    log:
        f"logs/tables/{{scale}}/{SUMMARY_TABLE}.log",
    localrule: True
    params:
        cells=lambda wildcards: names_of(wildcards),
        settings=settings,
        made_with=digest("tables", "collection"),
    shell:
        "leaf table summary {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --output {output} > {log} 2>&1"


rule paper_table:
    input:
        lambda wildcards: runs_of(wildcards),
    output:
        f"{REPORT}/{PAPER_TABLE}.tex",
        f"{REPORT}/{PAPER_TABLE}.md",
        report(
            f"{REPORT}/{PAPER_TABLE}.html",
            caption="../report/paper_table.rst",
            category=title_of,
            subcategory="Tables",
            labels={
                "table": "as in the paper",
                "network": "{network}",
                "data set": "all",
            },
        ),
    log:
        f"logs/tables/{{scale}}/{PAPER_TABLE}.log",
    localrule: True
    params:
        cells=lambda wildcards: names_of(wildcards),
        settings=settings,
        made_with=digest("tables", "collection"),
    shell:
        "leaf table paper {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --output {output} > {log} 2>&1"


for kind, label in NETWORK_TABLES.items():

    rule:
        name:
            f"{kind}_table"
        input:
            lambda wildcards: runs_of(wildcards),
        output:
            f"{REPORT}/{NETWORK_TABLE.replace('{kind}', kind)}.csv",
            f"{REPORT}/{NETWORK_TABLE.replace('{kind}', kind)}.md",
            report(
                f"{REPORT}/{NETWORK_TABLE.replace('{kind}', kind)}.html",
                caption=f"../report/{kind}_table.rst",
                category=title_of,
                subcategory="Tables",
                labels={"table": label, "network": "{network}", "data set": "all"},
            ),
        log:
            f"logs/tables/{{scale}}/{NETWORK_TABLE.replace('{kind}', kind)}.log",
        localrule: True
        params:
            kind=kind,
            cells=lambda wildcards: names_of(wildcards),
            settings=settings,
            statistics=json.dumps(config["statistics"], sort_keys=True),
            made_with=digest("statistics", "tables", "forms", "matching", "collection"),
        shell:
            "leaf table {params.kind} {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
            " --statistics {params.statistics:q} --output {output} > {log} 2>&1"
