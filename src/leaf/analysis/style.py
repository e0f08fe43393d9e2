"""How all figures look."""

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns


def set_style() -> None:
    """Let matplotlib draw without a screen, in the project's style; equal figures give equal SVG files."""
    matplotlib.use("agg")
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "svg.hashsalt": "leaf",
            "pdf.fonttype": 42,  # fonts embedded whole, as journals ask; in SVG letters are outlines
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.08,
            "legend.frameon": False,
        }
    )
