# The paper's figures, from the cells that each of them needs.


rule progress_chart:
    input:
        runs_of,
    output:
        report(
            f"{REPORT}/{PROGRESS_CHART}.{FIGURE_FORMAT}",
            caption="../report/progress_chart.rst",
            category=title_of,
            subcategory="Progress",
            labels={
                "network": "{network}",
                "data set": "{dataset}",
                "initial form": "{form}",
            },
        ),
    log:
        f"logs/figures/{{scale}}/{PROGRESS_CHART}.log",
    localrule: True
    params:
        cells=names_of,
        settings=settings_of,
        made_with=digest("figures"),
    shell:
        "leaf figure {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --progress {output} > {log} 2>&1"


rule forms_charts:
    input:
        cell_file("run.json"),
    output:
        forms=cell_chart(FORMS_CHART, "forms", "Activation forms"),
        evolution=cell_chart(EVOLUTION_CHART, "evolution", "Evolution of forms"),
    log:
        f"logs/figures/{{scale}}/{FORMS_CHART}.log",
    localrule: True
    params:
        cell=rules.train.params.cell,
        settings=settings,
        made_with=digest("figures"),
    shell:
        "leaf figure {params.cell} --scale {wildcards.scale} --settings {params.settings:q}"
        " --forms {output.forms} --evolution {output.evolution} > {log} 2>&1"


rule differences_chart:
    input:
        lambda wildcards: [
            run_of(cell, wildcards.scale)
            for cell in CONFIG.cells(scale=wildcards.scale)
        ],
    output:
        report(
            f"{REPORT}/{DIFFERENCES_CHART}.{FIGURE_FORMAT}",
            caption="../report/differences_chart.rst",
            category="Overview",
            labels={"table": "all differences from the base functions"},
        ),
    log:
        f"logs/figures/{{scale}}/{DIFFERENCES_CHART}.log",
    localrule: True
    params:
        **judged_records,
        statistics=json.dumps(config["statistics"], sort_keys=True),
        made_with=digest("forest"),
    shell:
        "leaf figure {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --statistics {params.statistics:q} --differences {output} > {log} 2>&1"


rule initial_forms_chart:
    output:
        report(
            f"{REPORT}/{INITIAL_FORMS_CHART}.{FIGURE_FORMAT}",
            caption="../report/initial_forms_chart.rst",
            category="Activation forms",
            subcategory="Initial forms",
            labels={"activation": "all", "error": "against the base function"},
        ),
    log:
        f"logs/figures/{{scale}}/{INITIAL_FORMS_CHART}.log",
    localrule: True
    params:
        made_with=digest("figures"),
    shell:
        "leaf figure --initial_forms {output} > {log} 2>&1"
