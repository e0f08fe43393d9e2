"""Style and file formats of all figures."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from leaf.experiment.errors import UserError
from leaf.experiment.files import write_whole

PAGE_WIDTH = 6.5
"""Width of a page's text, in inches, at which figures are drawn."""

TEXT_SIZE = 11
"""Font size at that width, in points; in a column of 85 mm it is more than 5 points."""


def set_style() -> None:
    """Set the project's style and a backend without a display. Equal figures give equal SVG files."""
    matplotlib.use("agg")
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "svg.hashsalt": "leaf",
            "pdf.fonttype": 42,  # embed TrueType fonts, as journals require; in SVG text becomes paths
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.08,
            "legend.frameon": False,
        }
    )


def write_figure(figure: Figure, file: Path) -> None:
    """Write a figure in the format that the file's suffix names, and close it. Equal figures give equal files.

    Raises:
        UserError: if the format is unknown.
    """
    if file.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise UserError(f"{file}: unknown figure format {file.suffix!r}; known formats include svg, pdf and png")
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(file.suffix)
    write_whole(file, lambda part: figure.savefig(part, dpi=150, metadata=metadata))
    plt.close(figure)
