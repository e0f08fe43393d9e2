"""What a cell's job asks for of a cluster: time and memory, reckoned from cells that trained with one thread each.

A job that asked for too little is ended, and goes on from its state when it is started again; one that asked for far
too much waits longer in the queue. So the times are five times what was measured: cores that took 2.8 times as long
were met since, and a cell beside other work on them took 4.6 times as long.
"""

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import DATASETS
from leaf.experiment.procedures import PROCEDURES
from leaf.experiment.scales import Settings
from leaf.names import NETWORKS

START_MINUTES = 10
"""For Snakemake, Python and the data set to load from a file system that is shared with others."""

TWO_STAGES, TESTING = 1.6, 0.35
"""What a step of two stages takes of one of one stage (measured: 1.4 to 1.6), and testing an image of training on it
(not measured by itself: the forward pass is about a third of a step)."""

SLACK = 5


def minutes(cell: Cell, settings: Settings) -> int:
    """How long a cell's job may take, in minutes."""
    images = DATASETS[cell.dataset].images
    train_images = settings.train_images or images["train"]
    test_images = (settings.test_images or images["test"]) + settings.validation_images
    steps = train_images * (TWO_STAGES if PROCEDURES[cell.procedure].two_stage else 1)
    thousands = len(cell.epochs(settings.epochs)) * (steps + TESTING * test_images) / 1000
    return START_MINUTES + round(SLACK * thousands * NETWORKS[cell.network].seconds_per_1000_images / 60)


def memory_mb(settings: Settings) -> int:
    """How much memory a cell's job may take, in MB.

    At minibatches of 128 images training was seen to take up to 1.2 GB, and each of the two processes of Snakemake that
    are in a SLURM job 0.6 GB, most of it libraries that they share.
    """
    return 2000 + 8 * settings.batch_size
