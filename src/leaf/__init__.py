"""Learnable activation functions (AHAF, LEAF) and the experiment that compares them with plain ones."""

from leaf import peers as peers  # these register themselves
from leaf import variants as variants
from leaf.activations import ACTIVATIONS, AHAF, LEAF
from leaf.experiment.cells import build_network
from leaf.networks import KerasNet, LeNet5

__all__ = ["ACTIVATIONS", "AHAF", "LEAF", "KerasNet", "LeNet5", "build_network"]
