# The data sets, fetched once and verified. A local rule: compute nodes have no network.

# Its braces are doubled, since Snakemake fills in what stands between braces.
WHOLE_CONFIG = shlex.quote(json.dumps(config)).replace("{", "{{").replace("}", "}}")


rule fetch:
    output:
        dataset_file("{dataset}"),
    log:
        "logs/fetch/{dataset}.log",
    localrule: True
    shell:
        # Not in params: where the bytes come from changes nothing about them.
        "leaf fetch {wildcards.dataset} --no-configfile --config "
        f"{WHOLE_CONFIG} > {{log}} 2>&1"
