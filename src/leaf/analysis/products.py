"""The catalogue of tables and figures. Each has an entry here, which names its function.

Commands, workflow rules, reports and the names that a configuration cannot use follow from the entries. Importing the
catalogue does not import the functions.
"""

from leaf.analysis.layout import BENCHMARK, REPORTS
from leaf.analysis.product import PAIRS, RANGES, ROUNDING, SELECTION, STALE, Figure, Group, Product, Table
from leaf.experiment.cells import CELL_PATTERN

# fmt: off
REPORT_TABLES = Group("claims", "{name}", "Overview")
NETWORK_TABLES = Group("network_tables", "tables/{experiment}/{network}/{name}", subcategory="Tables",
                       labels={"network": "{network}", "data set": "all"})
DATASET_TABLES = Group("summary_table", "tables/{experiment}/{network}/{dataset}", subcategory="Tables",
                       labels={"network": "{network}", "data set": "{dataset}"})
FORM_FIGURES = Group("progress_chart", "figures/{experiment}/{network}/{dataset}/{form}", subcategory="Progress",
                     labels={"network": "{network}", "data set": "{dataset}", "initial form": "{form}"})
CELL_FIGURES = Group("forms_charts", f"figures/{{name}}/{CELL_PATTERN}", subcategory="{network}, {dataset}",
                     labels={name: f"{{{name}}}" for name in ("activation", "procedure", "optimizer", "seed")})
REPORT_FIGURES = Group("differences_chart", "figures/{name}", "Overview")
FIGURES_WITHOUT_CELLS = Group("initial_forms_chart", "figures/{name}", "Activation forms", "Initial forms",
                              of_cells=False)

PRODUCTS: tuple[Product, ...] = (
    Table("summary", DATASET_TABLES, "one row per cell", "leaf.analysis.tables:summary_table"),
    Table("paper", NETWORK_TABLES, "best accuracies and epochs as in the paper", "leaf.analysis.tables:paper_table"),
    Table("differences", NETWORK_TABLES, "differences from the base functions, with intervals",
          "leaf.analysis.statistics:differences_table", statistics=True, notes=(ROUNDING, PAIRS)),
    Table("best_epoch", NETWORK_TABLES, "optimism of selecting the best epoch",
          "leaf.analysis.statistics:best_epoch_table"),
    Table("matches", NETWORK_TABLES, "known functions nearest to the learned curves",
          "leaf.analysis.tables:matches_table", forms=True, notes=(ROUNDING, RANGES, STALE)),
    Table("movement", NETWORK_TABLES, "change of the activation parameters in training",
          "leaf.analysis.movement:movement_table", forms=True, notes=(ROUNDING, STALE)),
    Table("overview", REPORT_TABLES, "number of cells by status, and diverged cells",
          "leaf.analysis.tables:overview_table", notes=(), on_first_page=True),  # its columns have these facts
    Table("claims", REPORT_TABLES, "verdicts on the paper's claims",
          "leaf.analysis.claims:evaluate", forms=True, notes=(ROUNDING, PAIRS), on_first_page=True,
          reads=("src/leaf/analysis/claims.yaml", "src/leaf/analysis/published.csv", str(BENCHMARK))),
    Table("best", REPORT_TABLES, "best learnable variant and best base function",
          "leaf.analysis.choice:best_table", statistics=True, notes=(ROUNDING, SELECTION)),
    Table("tuned", REPORT_TABLES, "activations with learning rates selected on validation images",
          "leaf.analysis.choice:tuned_table", statistics=True),
    Figure("progress", FORM_FIGURES, "accuracy and loss of several cells by epoch",
           "leaf.analysis.figures:progress_chart"),
    Figure("forms", CELL_FIGURES, "learned curves of one cell",
           "leaf.analysis.figures:forms_chart", forms=True, category="Activation forms"),
    Figure("evolution", CELL_FIGURES, "activation parameters of one cell by epoch",
           "leaf.analysis.figures:evolution_chart", forms=True, category="Evolution of forms"),
    Figure("differences", REPORT_FIGURES, "differences from the base functions, with intervals",
           "leaf.analysis.forest:differences_chart", statistics=True),
    Figure("claims", REPORT_FIGURES, "verdicts on the paper's claims with their numbers, on one page",
           "leaf.analysis.claims_chart:claims_chart", forms=True,
           reads=("src/leaf/analysis/claims.yaml", str(BENCHMARK))),
    Figure("initial_forms", FIGURES_WITHOUT_CELLS, "errors of AHAF and LEAF before training",
           "leaf.analysis.initial_forms:initial_forms_chart"),
)
# fmt: on

TABLES = {product.name: product for product in PRODUCTS if product.kind == "table"}
FIGURES = {product.name: product for product in PRODUCTS if product.kind == "figure"}


def by_group() -> dict[Group, list[Product]]:
    """The products of each group."""
    groups = dict.fromkeys(product.group for product in PRODUCTS)
    return {group: [product for product in PRODUCTS if product.group is group] for group in groups}


def taken_names(wildcard: str) -> dict[str, str]:
    """Find the values of a wildcard that would give a product the path of another one, with the reasons."""
    found = {}
    for one, other in ((one.path.split("/"), other.path.split("/")) for one in PRODUCTS for other in PRODUCTS):
        place = one.index(f"{{{wildcard}}}") if f"{{{wildcard}}}" in one else len(other)
        both = (place + 1 == len(one)) == (place + 1 == len(other))  # both are files, or both are directories
        if one[:place] == other[:place] and place < len(other) and both and "{" not in other[place]:
            found[other[place]] = f"{REPORTS}/SCALE/{'/'.join(other[: place + 1])} is taken"
    return found
