"""Where tables and figures lie below a report's directory, with Snakemake's wildcards; without their suffixes."""

from pathlib import Path

from leaf.experiment.cells import CELL_PATTERN

REPORTS = Path("reports")

SUMMARY_TABLE = "tables/{experiment}/{network}/{dataset}"
PAPER_TABLE = "tables/{experiment}/{network}"
DIFFERENCES_TABLE = "tables/{experiment}/{network}/differences"
BEST_EPOCH_TABLE = "tables/{experiment}/{network}/best_epoch"
PROGRESS_CHART = "figures/{experiment}/{network}/{dataset}/{form}"
FORMS_CHART = f"figures/forms/{CELL_PATTERN}"

SUMMARY_FORMATS = ("csv", "html")
PAPER_FORMATS = ("tex", "md", "html")
STATISTICS_FORMATS = ("csv", "md", "html")

RECORDS = ("cells.csv", "epochs.csv", "forms.safetensors")
"""The files of collected records."""
