"""The first page of a directory of results: the paper's tables side by side, differences and verdicts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from leaf.activations import ACTIVATIONS, LEAF
from leaf.analysis.claims import evaluate
from leaf.analysis.collection import Records, Variant, finished
from leaf.analysis.formats import to_markdown
from leaf.analysis.movement import reach_table
from leaf.analysis.pairs import are_mixed, computed_in, pair_notes
from leaf.analysis.rules import PAPERS_DATASETS, PAPERS_NETWORKS
from leaf.analysis.statistics import METRICS, judged_by
from leaf.analysis.tables import form_title, kind_of, marks, overview_table
from leaf.experiment.cells import Cell, sort_cells
from leaf.experiment.datasets import DATASETS
from leaf.experiment.procedures import OPTIMIZERS, PROCEDURES
from leaf.networks import NETWORKS

PAPERS_FAMILIES = ("base", "ahaf", "leaf")
UNTRAINED = "—"


def page(records: Records, charts: Mapping[str, str], statistics: Mapping[str, Any], about: str) -> str:
    """Make the page, in Markdown.

    Args:
        charts: paths of the report's figures, relative to the page, by name.
        statistics: arguments of ``differences_table``.
        about: hand-written text at the end of the page.
    """
    claims = evaluate(records)[["claim", "verdict", "measured", "reading"]]
    overview = overview_table(records).drop(columns=["stale", "damaged", "kernel", "threads", "torch", "commit"])
    sections = [
        *_tables(records),
        *_differences(records, charts["differences"], statistics),
        "## The paper's claims",
        f"![Verdict and numbers of each of the paper's claims]({charts['claims']})",
        to_markdown(claims),
        "[claims.csv](./claims.csv) has each claim's quantity, rule and missing data.",
        *_movement(records),
        "## Cells by status",
        to_markdown(overview),
        about,
    ]
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def _tables(records: Records) -> list[str]:
    return [
        f"# Results at the scale {', '.join(records.cells['scale'].unique())}",
        f"{len(finished(records.cells))} of {len(records.cells)} cells are trained. `leaf analyse` makes this page and"
        " all tables and figures from `cells.csv`, `epochs.csv` and `forms.safetensors`.",
        "## The paper's tables",
        f"{METRICS[judged_by(records)].capitalize()} in %, with its epoch in brackets. For several seeds: mean ±"
        " standard deviation, and in brackets the number of trained seeds."
        f" {UNTRAINED} marks a cell that is not trained yet. Combinations outside the grid are empty.",
        to_markdown(side_by_side(records)),
    ]


def _differences(records: Records, chart: str, statistics: Mapping[str, Any]) -> list[str]:
    return [
        "## Differences from the base functions",
        f"![Paired differences of learnable activations from their base functions]({chart})",
        "Each point is the accuracy with a learnable activation minus that with its base function, paired by seed, with"
        f" the {statistics['confidence']:.0%} t interval over seeds. A hollow point is one seed, which cannot be"
        " distinguished from chance.",
        *pair_notes(records),
        "[best.csv](./best.csv) compares the best learnable variant with the best base function.",
    ]


def _movement(records: Records) -> list[str]:
    """Describe the change of LEAF's parameters in training, if there are learned curves."""
    table = reach_table(records)
    if table.empty:
        return []
    parameters = list(LEAF.parameter_names)
    slow = table[table["slow"]]
    learned = [name for name in parameters if name not in LEAF.slow_parameters]
    least, most = float(slow[learned[0]].min()), float(slow[list(LEAF.slow_parameters)].to_numpy().max(initial=0))
    summary = (
        f" With P24Sl, {' and '.join(LEAF.slow_parameters)} changed by at most {most:.2g}, and {learned[0]} by at least"
        f" {least:.2g}."
    )
    shown = table.drop(columns="slow").assign(**{name: table[name].map("{:.2g}".format) for name in parameters})
    return [
        "## Change of LEAF's parameters",
        "The central 90% of a layer's elements lie within this distance of their initial value. The distance is that of"
        f" the layer and seed where it is largest.{summary if len(slow) else ''} `tables/*/*/movement.md` have all"
        " layers.",
        to_markdown(shown),
    ]


def side_by_side(records: Records) -> pd.DataFrame:
    """Join the paper's tables of both networks: a column per network and data set, a row per variant.

    Fields have the accuracy that comparisons use. If the records mix precisions or kinds of device, the column's title
    names them, or each field if the column mixes them.
    """
    cells = records.cells[records.cells["family"].isin(PAPERS_FAMILIES)]
    mixed = are_mixed(cells)
    columns: dict[str, pd.Series] = {}
    for network in PAPERS_NETWORKS:
        for dataset in PAPERS_DATASETS:
            here = cells[(cells["network"] == network) & (cells["dataset"] == dataset)]
            ways = [way for way in computed_in(here).unique() if way]
            title = f"{NETWORKS[network].title}, {DATASETS[dataset].title}"
            title += f" ({ways[0]})" if mixed and len(ways) == 1 else ""
            columns[title] = pd.Series({
                key: _entry(members, judged_by(records), len(ways) > 1)
                for key, members in here.groupby(list(Variant._fields), sort=False)
            }, dtype=object)  # fmt: skip
    # All networks and data sets have one order of rows: that of the same cells with the first network and data set.
    network, dataset = PAPERS_NETWORKS[0], PAPERS_DATASETS[0]
    moved = sort_cells(replace(Cell.parse(name), network=network, dataset=dataset) for name in cells["cell"])
    variants = (
        Variant(ACTIVATIONS[cell.activation].family, cell.form, cell.procedure, cell.optimizer) for cell in moved
    )
    wanted = list(dict.fromkeys(variants))
    words = pd.DataFrame(map(_words, wanted))
    table = pd.DataFrame(columns).reindex(pd.MultiIndex.from_tuples(wanted)).fillna("").reset_index(drop=True)
    return pd.concat([words, table], axis=1)


def _words(variant: Variant) -> dict[str, str]:
    kind = kind_of(variant.family, variant.form)
    procedure = PROCEDURES[variant.procedure].title
    return {
        "starts as": form_title(variant.form),
        "activation": kind.title if kind.adaptive else form_title(variant.form),
        "procedure": procedure + ("" if variant.optimizer == "adam" else f", {OPTIMIZERS[variant.optimizer].title}"),
    }


def _entry(cells: pd.DataFrame, metric: str, name_way: bool) -> str:
    """Format the accuracy of one variant's cells, one per seed."""
    present = cells[cells[metric].notna()]
    if present.empty:
        return UNTRAINED
    percent = present[metric].astype(float) * 100
    words = f"{percent.mean():.2f}" + (f" ± {percent.std():.2f}" if len(percent) > 1 else "")
    words += f" ({present['best_epoch'].iloc[0]})" if len(cells) == 1 else f" ({len(present)} of {len(cells)})"
    flaws = [mark for mark in marks(cells) if mark.startswith("(")]
    ways = [way for way in computed_in(present).unique() if way] if name_way else []
    return " ".join([words, *flaws, *ways])
