"""Differences between activations against hand-computed cases and SciPy's own paired test."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leaf.activations import ACTIVATIONS
from leaf.analysis.choice import best_table, tuned_table
from leaf.analysis.collection import COLUMNS, Records
from leaf.analysis.decomposition import order, seeds_share
from leaf.analysis.pairs import pair_notes
from leaf.analysis.statistics import best_epoch_table, differences_table, holm, paired_interval, pooled_mean
from leaf.experiment.cells import Cell
from leaf.experiment.errors import UserError

BASE = [0.60, 0.62, 0.58, 0.61, 0.59]
LEAF = [0.66, 0.69, 0.63, 0.67, 0.66]
SEEDS = (42, 100, 128, 1999, 7823)


def rows(activation, procedure, accuracies, dataset="cifar10", optimizer="adam", status="done", **columns):
    for seed, accuracy in zip(SEEDS, accuracies, strict=False):
        cell = Cell("lenet5", dataset, activation, procedure, optimizer, seed)
        kind = ACTIVATIONS[activation]
        yield {
            **vars(cell), "cell": cell.name, "family": kind.family, "form": kind.form, "status": status,
            "best_accuracy": accuracy, "final_accuracy": accuracy - 0.01, "last_epochs_accuracy": accuracy - 0.02,
            **columns,
        }  # fmt: skip


def records(*variants) -> Records:
    """Synthetic cells with known statistics."""
    cells = pd.DataFrame([row for variant in variants for row in variant]).reindex(columns=COLUMNS)
    return Records(cells, pd.DataFrame(), {})


def test_interval_against_scipy_and_by_hand():
    differences = [a - b for a, b in zip(LEAF, BASE, strict=True)]
    low, high, effect, p = paired_interval(differences, 0.95)
    theirs = stats.ttest_rel(LEAF, BASE)
    assert p == pytest.approx(theirs.pvalue)
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    # 0.06, 0.07, 0.05, 0.06, 0.07: mean 0.062, variance (4 + 64 + 144 + 4 + 64) / 4 · 1e-6; t with 4 degrees 2.776445
    deviation = math.sqrt(70e-6)
    assert effect == pytest.approx(0.062 / deviation)
    assert high - low == pytest.approx(2 * 2.776445 * deviation / math.sqrt(5), rel=1e-6)


def test_equal_differences_have_no_spread():
    assert paired_interval([0.5, 0.5], 0.95) == (0.5, 0.5, math.inf, 0.0)
    assert paired_interval([0.7861 - 0.7851, 0.8251 - 0.8241], 0.95)[2:] == (math.inf, 0.0)  # equal but for rounding
    assert paired_interval([0.0, 0.0, 0.0], 0.95) == (0.0, 0.0, 0.0, 1.0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, np.nan, 0.5, 0.001]) == pytest.approx([1.0, np.nan, 1.0, 0.003], nan_ok=True)
    assert holm([]).size == 0


def test_differences_are_paired_by_seed_with_the_base_of_the_form():
    found = records(
        rows("tanh", "classic", BASE),
        rows("leaf-tanh", "p24sl", LEAF),
        rows("leaf-tanh", "dspt-p24sl", [0.60, 0.61, 0.59, 0.60, 0.60]),
        rows("silu", "classic", [0.7]),
        rows("leaf-silu", "p24sl", [0.8]),
        rows("leaf-sigmoid", "p24sl", [0.5]),  # no base: nothing to compare with
        rows("ahaf-silu", "classic", [0.9], status="stale"),
    )
    table = differences_table(found, "best_accuracy", 0.95)
    points = "difference in best test accuracy, points"
    assert table["activation"].tolist() == ["LEAF as Tanh, P24Sl", "LEAF as Tanh, DSPT, P24Sl", "LEAF as SiLU, P24Sl"]
    assert table[points].tolist() == [6.2, 0.0, 10.0]
    assert table["seeds"].tolist() == [5, 5, 1]
    assert table["verdict"].tolist() == ["better", "no difference shown", "one seed: undetermined"]
    p = stats.ttest_rel(LEAF, BASE).pvalue
    assert table["p"].tolist()[0] == pytest.approx(p, abs=1e-5)
    assert table["p, Holm"].tolist()[0] == pytest.approx(2 * p, abs=1e-5)  # of two that could be tested
    assert np.isnan(table["low"].tolist()[2]) and np.isnan(table["p, Holm"].tolist()[2])
    reverse = records(rows("tanh", "classic", LEAF), rows("leaf-tanh", "p24sl", BASE))
    assert differences_table(reverse, "best_accuracy", 0.95)["verdict"].tolist() == ["worse"]


def test_seeds_without_a_partner_do_not_count():
    found = records(rows("tanh", "classic", BASE[:3]), rows("leaf-tanh", "p24sl", LEAF))
    table = differences_table(found, "final_accuracy", 0.95)
    assert table["seeds"].tolist() == [3] and table.columns[4] == "difference in final test accuracy, points"
    with pytest.raises(UserError, match="unknown metric 'accuracy'; known: auto, best_accuracy, final_accuracy"):
        differences_table(found, "accuracy", 0.95)


def test_cells_are_judged_at_the_epoch_that_validation_images_chose_if_there_are_some():
    variants = ("tanh", "classic", BASE), ("leaf-tanh", "p24sl", LEAF)
    found = records(*(rows(*variant) for variant in variants))
    assert differences_table(found, "auto", 0.95).columns[4] == "difference in best test accuracy, points"
    with pytest.raises(UserError, match=r"metric chosen_accuracy: no cell has it, since it needs validation_images"):
        differences_table(found, "chosen_accuracy", 0.95)
    base, learnable = (
        rows(*variant, chosen_accuracy=chosen) for variant, chosen in zip(variants, (0.4, 0.45), strict=True)
    )
    table = differences_table(records(base, learnable), "auto", 0.95)
    assert table["difference in test accuracy at the epoch chosen on validation images, points"].tolist() == [5.0]


def test_what_the_best_epoch_adds():
    found = records(
        rows("tanh", "classic", [0.5, 0.7], chosen_accuracy=0.45), rows("silu", "classic", [0.6]),
    )  # fmt: skip
    table = best_epoch_table(found)
    assert table["best test accuracy, %"].tolist() == [60.0, 60.0] and table["seeds"].tolist() == [2, 1]
    assert table["best minus final"].tolist() == [1.0, 1.0] and table["best minus mean of last 10"].tolist() == [
        2.0,
        2.0,
    ]
    assert table["best minus chosen"].tolist()[0] == 15.0 and np.isnan(table["best minus chosen"].tolist()[1])


CPU = {"device": "CPU (one)", "precision": "float32"}
OTHER_CPU = {"device": "CPU (another) and CPU (one)", "precision": "float32"}
GPU = {"device": "NVIDIA H100", "precision": "tf32"}


def test_pairs_must_share_precision_and_kind_of_device():
    bases = (*rows("tanh", "classic", BASE[:2], **CPU), *list(rows("tanh", "classic", BASE, **GPU))[2:])
    learnable = (*rows("leaf-tanh", "p24sl", LEAF[:3], **OTHER_CPU), *list(rows("leaf-tanh", "p24sl", LEAF, **GPU))[3:])
    found = records(bases, learnable)  # the third seed's base is of the GPU, its LEAF of a CPU
    (row,) = differences_table(found, "best_accuracy", 0.95).to_dict("records")
    alike = [0.06, 0.07, 0.06, 0.07]
    assert row["difference in best test accuracy, points"] == round(100 * np.mean(alike), 2)
    assert (row["seeds"], row["left out"]) == (4, 1)
    assert row["computed in"] == "float32 on CPU, tf32 on GPU"
    (note,) = pair_notes(found)
    assert (
        "leaf-tanh/p24sl/adam/seed128 (float32 on CPU) against lenet5/cifar10/tanh/classic/adam/seed128 (tf32" in note
    )


def test_a_comparison_without_a_pair_that_was_computed_alike_is_marked_and_not_judged():
    found = records(rows("tanh", "classic", BASE, **CPU), rows("leaf-tanh", "p24sl", LEAF, **CPU | {"device": "a GPU"}))
    (row,) = differences_table(found, "best_accuracy", 0.95).to_dict("records")
    assert (row["seeds"], row["left out"], row["verdict"]) == (0, 5, "computed differently: not compared")
    assert np.isnan(row["difference in best test accuracy, points"])
    alike = records(rows("tanh", "classic", BASE, **CPU), rows("leaf-tanh", "p24sl", LEAF, **OTHER_CPU))
    table = differences_table(alike, "best_accuracy", 0.95)
    assert table["verdict"].tolist() == ["better"] and not {"left out", "computed in"} & set(table)
    assert pair_notes(alike) == []


def test_nothing_to_compare_is_an_empty_table():
    found = records(rows("leaf-relu", "p24sl", LEAF, optimizer="rmsprop"))
    assert differences_table(found, "best_accuracy", 0.95).empty
    assert len(best_epoch_table(found)) == 1 and best_epoch_table(records(rows("tanh", "classic", []))).empty


def test_pooled_mean_by_hand():
    """Variances 1e-4 (two degrees of freedom) and 4e-4 (one); the third comparison has one seed."""
    found = pooled_mean([[0.01, 0.02, 0.03], [0.05, 0.05 + math.sqrt(8e-4)], [0.5]], 0.95)
    variance = (2 * 1e-4 + 4e-4) / 3
    half = stats.t.ppf(0.975, 3) * math.sqrt(variance * (1 / 3 + 1 / 2 + 1)) / 3
    mean = (0.02 + 0.05 + math.sqrt(2e-4) + 0.5) / 3
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))
    assert found.degrees == 3 and found.p_sign == pytest.approx(0.25)  # three of three heads, or tails
    means = np.array([0.02, 0.05 + math.sqrt(2e-4), 0.5])
    assert found.spread == pytest.approx(math.sqrt(means.var(ddof=1) - variance * (1 / 3 + 1 / 2 + 1) / 3))


def test_pooled_mean_of_one_comparison_is_the_paired_interval():
    differences = [a - b for a, b in zip(LEAF, BASE, strict=True)]
    found = pooled_mean([differences], 0.95)
    assert (found.low, found.high) == pytest.approx(paired_interval(differences, 0.95)[:2])


def test_a_gain_in_one_place_does_not_widen_the_pooled_interval():
    small = [[0.007, 0.008, 0.009]] * 15
    narrow, wide = (pooled_mean([*small, [gain, gain + 0.001, gain + 0.002]], 0.95) for gain in (0.007, 0.15))
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low)
    assert 0 < narrow.low < wide.low and wide.spread > 30 * narrow.spread


def test_one_seed_everywhere_has_no_pooled_interval():
    found = pooled_mean([[0.01], [0.02]], 0.95)
    assert found.mean == pytest.approx(0.015) and found.degrees == 0 and np.isnan([found.low, found.high]).all()


def test_seeds_share_against_a_published_example():
    """Shrout and Fleiss (1979), six targets and four judges: ICC(3,1) is 0.71, 95% interval 0.34 to 0.95."""
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    found = seeds_share(ratings, 0.95)
    assert 1 - np.array(found) == pytest.approx([0.71, 0.95, 0.34], abs=0.006)


def test_seeds_agree_on_the_order_unless_some_turn_it():
    rng = np.random.default_rng(1)
    same = np.arange(8.0)[:, None] + 0.1 * rng.normal(size=(8, 5))
    assert order(same).concordance == pytest.approx(1) and order(same).p > 0.5
    turned = same.copy()
    turned[:, 0] = turned[::-1, 0]
    assert order(turned).concordance < 0.5 and order(turned).p < 0.01
    noise = rng.normal(size=(8, 5))
    assert order(noise).concordance < 0.6 and order(noise).p > 0.025


def test_the_best_of_each_family_against_the_best_plain_function():
    found = records(
        rows("relu", "classic", [0.55, 0.57]),
        rows("silu", "classic", BASE),  # the best base function: mean 0.60
        rows("leaf-tanh", "p24sl", LEAF),  # the best LEAF, which starts as another function: mean 0.662
        rows("leaf-silu", "p24sl", [0.65, 0.66]),
        rows("leaf-silu", "dspt-p24sl", [0.99], status="stale"),
        rows("ahaf-silu", "classic", [0.58]),
        rows("leaf-relu", "p24sl", [0.3], dataset="fashion_mnist"),  # without a base function there
    )
    table = best_table(found, "auto", 0.95)
    ahaf, leaf = table.sort_values("best learnable variant").to_dict("records")
    assert (leaf["best base function"], leaf["best learnable variant"]) == ("SiLU", "LEAF as Tanh, P24Sl")
    assert (leaf["base candidates"], leaf["learnable candidates"], ahaf["learnable candidates"]) == (2, 2, 1)
    assert (leaf["base, %"], leaf["learnable, %"]) == (60.0, 66.2)
    theirs = stats.ttest_rel(LEAF, BASE).confidence_interval(0.95)
    difference = "difference in best test accuracy, points"
    assert (leaf["seeds"], leaf[difference]) == (5, 6.2)
    assert (leaf["low"], leaf["high"]) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=0.005)
    assert (ahaf["seeds"], ahaf["base, %"], ahaf[difference]) == (1, 60.0, -2.0) and np.isnan(ahaf["low"])


def test_the_best_are_compared_within_a_precision_and_over_shared_seeds():
    plain = rows("silu", "classic", BASE[:2], precision="float32", device="CPU (x)")
    other = rows("relu", "classic", [0.9], precision="tf32", device="NVIDIA")
    learnable = rows("leaf-silu", "p24sl", LEAF, precision="float32", device="CPU (x)")
    (row,) = best_table(records(plain, other, learnable), "final_accuracy", 0.95).to_dict("records")
    assert (row["best base function"], row["computed in"], row["seeds"]) == ("SiLU", "float32 on CPU", 2)
    assert row["learnable, %"] == 66.5  # of the two shared seeds, at the final epoch: (0.65 + 0.68) / 2
    with pytest.raises(UserError, match="unknown metric 'accuracy'"):
        best_table(records(learnable), "accuracy", 0.95)
    assert best_table(records(rows("leaf-silu", "p24sl", LEAF)), "auto", 0.95).empty


def test_learning_rates_are_selected_on_validation_images_and_compared_on_test_images():
    """The rate that is best on test images, 3e-3, is not the one that validation images select."""
    tested = {
        ("tanh", "classic", "adam"): BASE,
        ("tanh", "classic", "adam-3e-3"): [0.9] * 5,
        ("leaf-tanh", "p24sl", "adam"): [0.9] * 5,
        ("leaf-tanh", "p24sl", "adam-3e-4"): LEAF,
    }
    validated = dict(zip(tested, (0.61, 0.5, 0.62, 0.7), strict=True))
    found = records(*(
        rows(name, procedure, accuracies, optimizer=optimizer, chosen_accuracy=0.0)
        for (name, procedure, optimizer), accuracies in tested.items()
    ))  # fmt: skip
    found.cells["chosen_accuracy"] = found.cells["best_accuracy"]
    keys = zip(found.cells["activation"], found.cells["procedure"], found.cells["optimizer"], strict=True)
    best = np.array([validated[key] for key in keys])
    epochs = pd.concat(
        pd.DataFrame({"cell": found.cells["cell"], "validation_accuracy": values}) for values in (best - 0.3, best)
    )
    base, leaf = tuned_table(Records(found.cells, epochs, {}), "auto", 0.95).to_dict("records")
    assert (base["selected"], leaf["selected"], leaf["candidates"], leaf["seeds"]) == ("Adam", "Adam at 3e-4", 2, 5)
    assert (leaf["validation accuracy, %"], base["validation accuracy, %"]) == (70.0, 61.0)
    accuracy = "test accuracy at the epoch chosen on validation images, %"
    assert (base[accuracy], leaf[accuracy]) == (60.0, 66.2)
    theirs = stats.ttest_rel(LEAF, BASE).confidence_interval(0.95)
    difference = "difference from the tuned base function, points"
    assert leaf[difference] == 6.2 and np.isnan(base[difference])
    assert (leaf["low"], leaf["high"]) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=0.005)
    assert tuned_table(records(rows("tanh", "classic", BASE)), "auto", 0.95).empty  # no validation images
