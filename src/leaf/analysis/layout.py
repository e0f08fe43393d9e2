"""Where tables and figures lie below a report's directory, with Snakemake's wildcards; without their suffixes."""

from pathlib import Path

from leaf.experiment.cells import CELL_PATTERN

REPORTS = Path("reports")

SUMMARY_TABLE = "tables/{experiment}/{network}/{dataset}"
PAPER_TABLE = "tables/{experiment}/{network}"
NETWORK_TABLE = "tables/{experiment}/{network}/{kind}"
CLAIMS_TABLE = "claims"
PROGRESS_CHART = "figures/{experiment}/{network}/{dataset}/{form}"
FORMS_CHART = f"figures/forms/{CELL_PATTERN}"

SUMMARY_FORMATS = ("csv", "html")
PAPER_FORMATS = ("tex", "md", "html")
NETWORK_FORMATS = ("csv", "md", "html")
NETWORK_TABLES = {
    "differences": "against the base functions",
    "best_epoch": "what the best epoch adds",
    "matches": "what learned curves are like",
}
"""The kinds of tables that an experiment has of each network, with what the report calls them."""

RECORDS = ("cells.csv", "epochs.csv", "forms.safetensors")
"""The files of collected records."""
