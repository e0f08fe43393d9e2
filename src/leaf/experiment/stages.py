"""Stages of a training step, by the names of its procedure and optimizer."""

from functools import partial

import torch

from leaf.adaptive import Adaptive
from leaf.experiment.packing import PackedOptimizer
from leaf.experiment.procedures import OPTIMIZERS, PROCEDURES
from leaf.networks import Network
from leaf.procedures import Stage, parameter_groups, two_stages


def training_stages(network: Network, procedure: str, optimizer: str) -> list[Stage]:
    """Build the stages of one training step of ``network``, in order.

    Args:
        procedure: a name in ``PROCEDURES``.
        optimizer: a name in ``OPTIMIZERS``.

    Raises:
        ValueError: if the network lacks the parameters that the procedure treats separately.
    """
    adaptive = [layer for layer in network.activations if isinstance(layer, Adaptive)]
    plan, choice = PROCEDURES[procedure], OPTIMIZERS[optimizer]
    if (plan.two_stage or plan.weights_rest) and not adaptive:
        raise ValueError(f"{plan.title} trains activation parameters separately, and this network has none")
    if plan.slow and not any(layer.slow_parameters for layer in adaptive):
        raise ValueError(f"{plan.title} slows down p2 and p4, which only LEAF has")
    rate = choice.settings["lr"]
    slow_rate = choice.slow_learning_rate if plan.slow else rate
    on_gpu = next(network.parameters()).is_cuda

    def optimize(of: str) -> torch.optim.Optimizer:
        groups = parameter_groups(network, rate, slow_learning_rate=slow_rate, weight_decay=0.0, of=of)
        # The published code uses a CPU's default implementation, without foreach. On a GPU it must be capturable in a
        # CUDA graph, which makes Adam's bias corrections float32, with an error of up to 1e-5 of a step. The fused
        # implementation would save 4% of a step, but it rounds differently: the second epoch of LeNet-5 with ReLU then
        # differs from the published one by more than the tolerance. Packing changes no bit.
        build = partial(choice.kind, foreach=False, capturable=on_gpu, **choice.settings)
        return PackedOptimizer(groups, build) if on_gpu else build(groups)

    if not plan.two_stage and not plan.weights_rest:
        return [Stage(optimize("all"), [])]
    stages = two_stages(optimize("activations"), optimize("others"))
    return stages[:1] if plan.weights_rest else stages
