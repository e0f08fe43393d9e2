# The paper's tables, from the cells that each of them needs, and what tells how far to trust them.


rule summary_table:
    input:
        runs_of,
    output:
        table_files(
            SUMMARY_TABLE,
            "every cell",
            caption="../report/summary_table.rst",
            category=title_of,
            subcategory="Tables",
            labels={"network": "{network}", "data set": "{dataset}"},
        ),
    log:
        f"logs/tables/{{scale}}/{SUMMARY_TABLE}.log",
    localrule: True
    params:
        cells=names_of,
        settings=settings_of,
        made_with=digest("tables", "formats"),
    shell:
        "leaf table {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --summary {output} > {log} 2>&1"


rule network_tables:
    input:
        runs_of,
    output:
        paper=network_table("paper", "as in the paper"),
        differences=network_table("differences", "against the base functions"),
        best_epoch=network_table("best_epoch", "what the best epoch adds"),
        matches=network_table("matches", "what learned curves are like"),
        movement=network_table("movement", "how far parameters moved"),
    log:
        "logs/tables/{scale}/{experiment}/{network}.log",
    localrule: True
    params:
        cells=names_of,
        settings=settings_of,
        statistics=json.dumps(config["statistics"], sort_keys=True),
        made_with=digest("statistics", "tables", "movement", "formats"),
    shell:
        "leaf table {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --statistics {params.statistics:q} --paper {output.paper} --differences {output.differences}"
        " --best_epoch {output.best_epoch} --matches {output.matches} --movement {output.movement} > {log} 2>&1"
