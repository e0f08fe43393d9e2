# The data sets, fetched once and verified. A local rule: compute nodes have no network.

# Their braces are doubled, since Snakemake fills in what stands between braces.
GUESTS = json.dumps({"guests": config["guests"]}).replace("{", "{{").replace("}", "}}")


rule fetch:
    output:
        dataset_file("{dataset}"),
    log:
        "logs/fetch/{dataset}.log",
    localrule: True
    shell:
        # Not in params: where the bytes come from changes nothing about them.
        f"leaf fetch {{wildcards.dataset}} --directory {shlex.quote(config['datasets_directory'] or '')}"
        f" --config {shlex.quote(GUESTS)} > {{log}} 2>&1"
