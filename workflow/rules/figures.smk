# The paper's figures, from the cells that each of them needs.


rule progress_chart:
    input:
        lambda wildcards: runs_of(wildcards),
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
        cells=lambda wildcards: names_of(wildcards),
        settings=settings,
        made_with=digest("figures", "tables", "collection"),
    shell:
        "leaf figure progress {params.cells} --scale {wildcards.scale} --settings {params.settings:q}"
        " --output {output} > {log} 2>&1"


rule forms_chart:
    input:
        cell_file("run.json"),
    output:
        report(
            f"{REPORT}/{FORMS_CHART}.{FIGURE_FORMAT}",
            caption="../report/forms_chart.rst",
            category="Activation forms",
            subcategory="{network}, {dataset}",
            labels={
                "activation": "{activation}",
                "procedure": "{procedure}",
                "optimizer": "{optimizer}",
                "seed": "{seed}",
            },
        ),
    log:
        f"logs/figures/{{scale}}/{FORMS_CHART}.log",
    localrule: True
    params:
        cell=rules.train.params.cell,
        settings=settings,
        made_with=digest("figures", "forms", "collection"),
    shell:
        "leaf figure forms {params.cell} --scale {wildcards.scale} --settings {params.settings:q}"
        " --output {output} > {log} 2>&1"
