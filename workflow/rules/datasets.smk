# The data sets, fetched once and verified. A local rule: compute nodes have no network.


rule fetch:
    output:
        dataset_file("{dataset}"),
    log:
        "logs/fetch/{dataset}.log",
    localrule: True
    params:
        config=lambda wildcards: json.dumps(
            {"datasets_directory": config["datasets_directory"]}
        ),
    shell:
        "leaf fetch {wildcards.dataset} --config {params.config:q} > {log} 2>&1"
