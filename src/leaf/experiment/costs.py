"""Time and memory that a cell's job requests from a cluster, estimated from cells that trained with one thread each.

A job that requests too little time is killed, and resumes from its state when it is started again. A job that requests
far too much waits longer in the queue. The requested times are five times the measured ones: cells took up to 2.8 times
as long on slower cores, and up to 4.6 times as long with other work on the same cores.
"""

from leaf.experiment.cells import Cell
from leaf.experiment.datasets import DATASETS
from leaf.experiment.procedures import PROCEDURES
from leaf.experiment.scales import Settings
from leaf.names import NETWORKS

START_MINUTES = 10
"""Time to load Snakemake, Python and the data set from a busy shared file system."""

TWO_STAGES, TESTING = 1.6, 0.35
"""Cost of a two-stage step relative to a one-stage step (measured: 1.4 to 1.6), and of testing on an image relative to
training on it (not measured: the forward pass is about a third of a step)."""

SLACK = 5


def minutes(cell: Cell, settings: Settings) -> int:
    """Return the time limit of a cell's job, in minutes."""
    images = DATASETS[cell.dataset].images
    train_images = settings.train_images or images["train"]
    test_images = (settings.test_images or images["test"]) + settings.validation_images
    steps = train_images * (TWO_STAGES if PROCEDURES[cell.procedure].two_stage else 1)
    thousands = len(cell.epochs(settings.epochs)) * (steps + TESTING * test_images) / 1000
    return START_MINUTES + round(SLACK * thousands * NETWORKS[cell.network].seconds_per_1000_images / 60)


def memory_mb(cell: Cell, settings: Settings) -> int:
    """Return the memory limit of a cell's job, in MB.

    With minibatches of 128 images, training used up to 1.2 GB, and 2.5 GB with ResNet-18. Each of the two Snakemake
    processes in a SLURM job used 0.6 GB, most of it for libraries that they share.
    """
    return 2000 + NETWORKS[cell.network].megabytes_per_image * settings.batch_size
