"""Change of the activation parameters in training, in particular of LEAF's p2 and p4 with P24Sl."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from leaf.analysis.collection import Records, Variant
from leaf.analysis.forms import layers, parameter_quantiles
from leaf.analysis.tables import variant_title
from leaf.experiment.datasets import DATASETS
from leaf.experiment.observations import QUANTILES
from leaf.experiment.procedures import PROCEDURES
from leaf.networks import NETWORKS

SHOWN = (0.05, 0.5, 0.95)
"""Quantiles over a layer's elements in the table."""


def _changes(records: Records, cell: str) -> Iterator[tuple[str, str, float, np.ndarray]]:
    """Yield layer, parameter, initial value and quantiles of the change, for all activation parameters of a cell.

    All elements of a layer have the same initial value. Subtracting it from the quantiles of the values gives those of
    the changes.
    """
    forms = records.forms.get(cell, {})
    for layer in layers(forms):
        for name, values in parameter_quantiles(forms, layer).items():
            start = float(values[0, QUANTILES.index(0.5)])
            yield layer, name, start, values[-1].astype(float) - start


def movement_table(records: Records) -> pd.DataFrame:
    """Make a table of the change of each parameter: quantiles over a layer's elements, averaged over seeds.

    One row per data set, variant, layer and parameter of the cells with learned curves. Changes have three significant
    digits.
    """
    rows = []
    several_optimizers = len(records.unique("optimizer")) > 1
    for dataset in records.unique("dataset"):
        for variant, cells in records.select(dataset=dataset).variants():
            found: dict[tuple[str, str, float], list[np.ndarray]] = {}
            for cell in cells["cell"]:
                for layer, name, start, change in _changes(records, cell):
                    found.setdefault((layer, name, start), []).append(change)
            for (layer, name, start), changes in found.items():
                mean = np.mean(changes, axis=0)
                rows.append({
                    "data set": DATASETS[dataset].title, "activation": variant_title(variant, several_optimizers),
                    "layer": layer, "parameter": name, "seeds": len(changes), "start": f"{start:g}",
                    **{f"change, {level:.0%}": f"{mean[QUANTILES.index(level)]:+.3g}" for level in SHOWN},
                })  # fmt: skip
    return pd.DataFrame(rows)


def reach_table(records: Records) -> pd.DataFrame:
    """Make a table of the largest changes of LEAF's parameters: one row per network, data set and variant.

    The change of a parameter is the larger absolute end of the central 90% of its changes in a layer. The table has its
    maximum over layers and seeds. The column ``slow`` is true if the procedure includes P24Sl.
    """
    rows = []
    for key, cells in records.select(family="leaf").cells.groupby(["network", "dataset", *Variant._fields], sort=False):
        network, dataset, *fields = map(str, key)
        reach: dict[str, float] = {}
        for cell in cells["cell"]:
            for _, name, _, change in _changes(records, cell):
                ends = [abs(change[QUANTILES.index(level)]) for level in (0.05, 0.95)]
                reach[name] = max(reach.get(name, 0.0), *ends)
        if reach:
            variant = Variant(*fields)
            rows.append({
                "network": NETWORKS[network].title, "data set": DATASETS[dataset].title,
                "activation": variant_title(variant, with_optimizer=variant.optimizer != "adam"),
                **reach, "slow": PROCEDURES[variant.procedure].slow,
            })  # fmt: skip
    return pd.DataFrame(rows)
