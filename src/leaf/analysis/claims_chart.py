"""One-page figure of the paper's claims, each with its verdict and the numbers that its rule compares."""

from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leaf.analysis.claims import FAILS, HOLDS, UNDECIDED, Judged, judge
from leaf.analysis.collection import Records
from leaf.analysis.rules import Number
from leaf.analysis.style import PAGE_WIDTH, TEXT_SIZE, set_style

set_style()

SIGNS = {HOLDS: "\N{BLACK CIRCLE}", FAILS: "\N{MULTIPLICATION SIGN}", UNDECIDED: "\N{WHITE CIRCLE}"}
"""Signs of the verdicts, which are distinct without color."""

LINE, GAP = 0.165, 0.2
"""Height of a line of text, and the space between claims, in inches."""

SPLIT, LETTERS = 0.56, 46
"""Left end of the numbers as a share of the width, and the number of characters per line left of them."""

MOST_LINES = 6
"""Number of lines at which a sentence is cut; one with a list of missing data may be longer."""


def claims_chart(records: Records) -> Figure:
    """Draw the paper's claims: name, verdict, meaning of the verdict, and available and needed data.

    The right half has the numbers that the rule compares with its threshold, a dashed line, and their intervals. Points
    are hollow if the claim is undecided.
    """
    judged = judge(records)
    texts = [
        wrap(one.reading, LETTERS, break_on_hyphens=False, max_lines=MOST_LINES, placeholder=" …") for one in judged
    ]
    heights = [
        LINE * max(1 + len(text) + bool(one.finding.data), 2 * len(one.finding.numbers) + 1.5) + GAP
        for one, text in zip(judged, texts, strict=True)
    ]
    figure = plt.figure(figsize=(PAGE_WIDTH, sum(heights)))
    figure.set_layout_engine("none")
    top = sum(heights)
    for one, text, height in zip(judged, texts, heights, strict=True):
        _write(figure, one, text, top)
        _draw(figure, one, top)
        top -= height
    return figure


def _write(figure: Figure, one: Judged, text: list[str], top: float) -> None:
    """Write a claim's name, verdict, sentence and data below ``top``, in inches from the figure's lower edge."""
    height = figure.get_figheight()
    y = (top - GAP / 2) / height
    figure.text(0.01, y, SIGNS[one.verdict], va="top", fontsize=TEXT_SIZE)
    figure.text(0.05, y, one.claim["chart"]["name"], va="top", weight="bold", fontsize=TEXT_SIZE)
    figure.text(SPLIT - 0.02, y, one.verdict, va="top", ha="right", style="italic", fontsize=TEXT_SIZE)
    for index, line in enumerate([*text, *([f"Data: {one.finding.data}."] if one.finding.data else [])], 1):
        color = "black" if index <= len(text) else "0.35"
        figure.text(0.05, y - index * LINE / height, line, va="top", color=color, fontsize=TEXT_SIZE - 1)
    if top < height:
        rule = Line2D([0, 1], [top / height] * 2, color="0.75", linewidth=0.6, transform=figure.transFigure)
        figure.add_artist(rule)


def _draw(figure: Figure, one: Judged, top: float) -> None:
    """Draw a claim's numbers below ``top``, each with its label above it, and the threshold."""
    numbers, height = one.finding.numbers, figure.get_figheight()
    left, bottom = SPLIT + 0.02, (top - GAP / 2 - 2 * LINE * len(numbers)) / height
    axis = figure.add_axes((left, bottom, 0.98 - left, (top - GAP / 2) / height - bottom), frameon=False)
    axis.set(ylim=(2 * len(numbers) or 1, 0), xticks=[], yticks=[])
    axis.margins(x=0.05)
    for index, number in enumerate(numbers):
        y, face = 2 * index + 1.5, "white" if one.verdict == UNDECIDED else "black"
        axis.plot([one.finding.threshold] * 2, [y - 0.45, y + 0.45], color="0.4", linestyle=(0, (2, 1)), linewidth=1)
        axis.plot([number.low, number.high], [y, y], color="black", linewidth=2, solid_capstyle="butt")
        axis.plot(number.value, y, "o", color="black", markersize=5, markerfacecolor=face)
        axis.text(0, y - 1, _words(number), transform=axis.get_yaxis_transform(), va="center", fontsize=TEXT_SIZE - 1)
    words = one.claim["chart"]["axis"].format(threshold=one.finding.threshold) if numbers else "no number yet"
    axis.set_xlabel(words, fontsize=TEXT_SIZE - 2, labelpad=2, color="0.35", loc="left")


def _words(number: Number) -> str:
    if np.isnan(number.low):
        return f"{number.label}: {number.value:.3g}"
    value, low, high = (f"{value:#.3g}".rstrip(".").replace("-", "\N{MINUS SIGN}") for value in number[1:])
    return f"{number.label}: {value} [{low}, {high}]"
