# What the rules share: which cells a table or figure is made of, and what it depends on beside them.

REPORT = f"{REPORTS}/{{scale}}"
FIGURE_FORMAT = config["figure_format"]
CELL = f"{{scale}}/{CELL_PATTERN}"

# Where and with what care cells train, and who watches. Not in params: it changes nothing about their results.
# Doubled braces, since Snakemake fills single ones.
TRACKING = shlex.quote(json.dumps(config["tracking"]))
TRACKING = TRACKING.replace("{", "{{").replace("}", "}}")
EXECUTION = (
    f"--device {config['device']} --precision {config['precision']}"
    f" --checkpoint-epochs {config['checkpoint']['epochs']}"
    f" --checkpoint-minutes {config['checkpoint']['minutes']}"
    f" --tracking {TRACKING}"
)


def cell_file(name: str) -> str:
    """Pattern of one of a cell's output files."""
    return f"{RESULTS}/{CELL}/{name}"


def cell_of(wildcards) -> Cell:
    """The cell that wildcards name."""
    return Cell.parse(CELL_PATTERN.format(**dict(wildcards.items())))


def parent_model(wildcards) -> list[str]:
    """The weights that a cell starts from, if it takes over another cell's network."""
    parent = cell_of(wildcards).parent
    return [f"{parent.directory(wildcards.scale)}/model.safetensors"] if parent else []


def settings(wildcards) -> str:
    """What changes the results of a cell, as canonical JSON: a change retrains it."""
    scale = wildcards.scale
    return Identity.of(
        cell_of(wildcards), scale, CONFIG.scales[scale].settings
    ).to_json()


def settings_of(wildcards) -> str:
    """The same of an experiment's cells."""
    scale = CONFIG.scales[wildcards.scale]
    return settings_json(scale.settings, cells_of(wildcards))


def continued_scale(scale: str) -> str:
    """The option that names the scale whose states a scale's cells go on from, if there is one."""
    continues = CONFIG.scales[scale].continues
    return f"--continues {continues}" if continues else ""


def cells_of(wildcards) -> list:
    """The cells of an experiment that have the values of the other wildcards."""
    cells = CONFIG.cells([wildcards.experiment], wildcards.scale)
    fields = {
        field: value
        for field, value in wildcards.items()
        if field not in ("experiment", "scale")
    }
    return [
        cell
        for cell in cells
        if all(getattr(cell, field) == value for field, value in fields.items())
    ]


def names_of(wildcards) -> list[str]:
    """The names of those cells."""
    return [cell.name for cell in cells_of(wildcards)]


def runs_of(wildcards) -> list[str]:
    """The run.json files of those cells."""
    return [run_of(cell, wildcards.scale) for cell in cells_of(wildcards)]


def title_of(wildcards) -> str:
    """An experiment's title in the report."""
    return CONFIG.experiments[wildcards.experiment]["title"]


def digest(*names: str) -> str:
    """Of what makes something: modules of the analysis with all that they import there, and other files there.

    A change makes it again.
    """
    files, left = {}, [name if "." in name else f"{name}.py" for name in names]
    while left:
        file = left.pop()
        if file not in files:
            files[file] = (
                importlib.resources.files("leaf.analysis")
                .joinpath(file)
                .read_text(encoding="utf-8")
            )
            modules = re.findall(
                r"^ *from leaf\.analysis\.(\w+) import", files[file], re.M
            )
            left += [f"{module}.py" for module in modules]
    content = "".join(files[file] for file in sorted(files)).encode()
    # The training version too: tables and figures mark results of another one.
    return f"{hashlib.sha256(content).hexdigest()[:16]}, training version {TRAINING_VERSION}"


def table_files(pattern: str, table: str, **about) -> list:
    """A table's outputs in every format, the page for the report with what it says of it."""
    labels = {"table": table, **about.pop("labels", {})}
    files = {suffix: f"{REPORT}/{pattern}.{suffix}" for suffix in TABLE_FORMATS}
    files["html"] = report(files["html"], labels=labels, **about)
    return list(files.values())


def network_table(kind: str, title: str) -> list:
    """The outputs of one kind of table that an experiment has of each network."""
    return table_files(
        NETWORK_TABLE.replace("{kind}", kind),
        title,
        caption=f"../report/{kind}_table.rst",
        category=title_of,
        subcategory="Tables",
        labels={"network": "{network}", "data set": "all"},
    )


def cell_chart(pattern: str, kind: str, category: str) -> str:
    """A chart of one cell, with what the report says of it."""
    return report(
        f"{REPORT}/{pattern}.{FIGURE_FORMAT}",
        caption=f"../report/{kind}_chart.rst",
        category=category,
        subcategory="{network}, {dataset}",
        labels={
            "activation": "{activation}",
            "procedure": "{procedure}",
            "optimizer": "{optimizer}",
            "seed": "{seed}",
        },
    )


def products(experiment: str, scale: str) -> list[str]:
    """Every table and figure of an experiment, and its cells: one that is gone is trained again, whatever is made of it."""
    cells = CONFIG.cells([experiment], scale)
    runs, tables, charts = (
        [run_of(cell, scale) for cell in cells],
        [],
        [],
    )
    for cell in cells:
        place = {"experiment": experiment, "form": cell.form, **asdict(cell)}
        tables += [SUMMARY_TABLE.format(**place)]
        tables += [NETWORK_TABLE.format(kind=kind, **place) for kind in NETWORK_TABLES]
        charts += [PROGRESS_CHART.format(**place)]
        if ACTIVATIONS[cell.activation].adaptive:
            charts += [FORMS_CHART.format(**place), EVOLUTION_CHART.format(**place)]
    files = [f"{table}.{suffix}" for table in tables for suffix in TABLE_FORMATS]
    files += [f"{chart}.{FIGURE_FORMAT}" for chart in charts]
    return runs + [f"{REPORTS}/{scale}/{file}" for file in dict.fromkeys(files)]


def runs_without_record(scale: str) -> list[str]:
    """The run.json files of the cells that have no results in reports/shipped, which holds those of the scale paper.

    They are of the target all, and of the experiments beyond it that have been begun.
    """
    file = SHIPPED / RECORDS[0]
    rows = []
    if scale == "paper" and file.exists():
        with file.open(newline="") as opened:
            rows = list(csv.DictReader(opened))
    recorded = {
        row["cell"] for row in rows if row["training_version"] == str(TRAINING_VERSION)
    }
    begun = {name for row in rows for name in row["experiments"].split()}
    cells = CONFIG.cells(
        [name for name in CONFIG.experiments if name in CONFIG.in_all or name in begun],
        scale,
    )
    return [run_of(cell, scale) for cell in cells if cell.name not in recorded]


def content(files) -> str:
    """A digest of files that are no inputs, since none of them must exist."""
    there = [file.read_bytes() for file in files if file.exists()]
    return hashlib.sha256(b"".join(there)).hexdigest()


def existing_runs(wildcards) -> str:
    """A digest of all finished cells' run.json files."""
    return content(sorted((RESULTS / wildcards.scale).rglob("run.json")))


def finished_beyond_all(wildcards) -> list[Cell]:
    """The finished cells of the experiments that are not in all."""
    scale, in_all = wildcards.scale, set(CONFIG.cells(scale=wildcards.scale))
    return [
        cell
        for cell in CONFIG.cells(CONFIG.experiments, scale)
        if cell not in in_all and Path(run_of(cell, scale)).exists()
    ]


def judged_cells(wildcards) -> list[Cell]:
    """The cells that claims are judged by: those of the target all, and what is finished beyond them."""
    in_all = CONFIG.cells(scale=wildcards.scale)
    return sort_cells([*in_all, *finished_beyond_all(wildcards)])


judged_records = dict(
    cells=lambda wildcards: [cell.name for cell in judged_cells(wildcards)],
    settings=lambda wildcards: settings_json(
        CONFIG.scales[wildcards.scale].settings, judged_cells(wildcards)
    ),
    # No inputs: who makes what all asks for wants none of them trained again.
    beyond_all=lambda wildcards: content(
        Path(run_of(cell, wildcards.scale)) for cell in finished_beyond_all(wildcards)
    ),
)
"""What the products of the judged cells depend on, as parameters of their rules."""


def run_of(cell: Cell, scale: str) -> str:
    """A cell's run.json, which is written last."""
    return f"{cell.directory(scale)}/run.json"


def check_targets() -> None:
    """Check the targets of the command line, as Snakemake parses it; a Snakefile cannot see them otherwise.

    Raises:
        UserError: if there is no such target.
    """
    if Path(sys.argv[0]).stem not in ("snakemake", "__main__"):
        return  # another program's command line
    rules = [rule.name for rule in workflow.rules if not rule.has_wildcards()]
    for target in get_argument_parser().parse_known_args(sys.argv[1:])[0].targets:
        CONFIG.check_target(target, rules, is_made)


def is_made(file: str) -> bool:
    """Whether a rule makes a file."""
    return any(rule.is_producer(file) for rule in workflow.rules)
