"""Training steps captured as CUDA graphs: one launch per step instead of hundreds.

The experiment's networks are so small that a GPU finishes each kernel before Python launches the next.
"""

import gc
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[..., Tensor]
"""A function of a minibatch's tensors that updates parameters and optimizer states in place and returns the loss."""


def captured(step: Step, state: Callable[[], list[Tensor]], minibatch: int, device: torch.device) -> Step:
    """Return a ``CapturedStep`` on a GPU, and the step itself on other devices."""
    if device.type != "cuda":
        return step
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    return CapturedStep(step, state, minibatch, generator, torch.cuda.Stream())


class CapturedStep:
    """A step that is replayed as a CUDA graph from the third full minibatch on, with bitwise equal results.

    The first full minibatch runs eagerly, since a step makes some allocations only once. The second runs twice from the
    same state, eagerly and as a graph. If the results are bitwise equal, later steps replay the graph, else they run
    eagerly.

    Args:
        step: a step whose operations are all on tensors of one GPU.
        state: returns the tensors that the step modifies.
        minibatch: number of images in a full minibatch; smaller ones always run eagerly.
        generator: random number generator that the step draws from.
        stream: stream of the capture.
    """

    def __init__(
        self,
        step: Step,
        state: Callable[[], list[Tensor]],
        minibatch: int,
        generator: torch.Generator,
        stream: torch.cuda.Stream,
    ) -> None:
        self._step, self._state, self._minibatch = step, state, minibatch
        self._generator, self._stream = generator, stream
        self._take: Step = self._first

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self._take(*inputs) if len(inputs[0]) == self._minibatch else self._step(*inputs)

    def _first(self, *inputs: Tensor) -> Tensor:
        self._take = self._second
        return take_on(self._stream, self._step, *inputs)

    def _second(self, *inputs: Tensor) -> Tensor:
        before = self._snapshot()
        loss = take_on(self._stream, self._step, *inputs)
        after = self._snapshot()
        self._restore(before)
        try:
            self._take = record(self._stream, self._step, inputs)
            replayed = [self._take(*inputs), *self._snapshot()]
            trouble = "" if all(map(torch.equal, [loss, *after], replayed)) else "the replayed step has other results"
        except RuntimeError as error:
            cause = error.__context__ or error  # the error that stopped the capture, not its consequence
            trouble = (str(cause) or repr(cause)).splitlines()[0]
        if trouble:
            self._take = self._step
            self._restore(after)
            warnings.warn(
                f"training steps cannot be captured as a CUDA graph; training is slower: {trouble}", stacklevel=2
            )
        return loss

    def _snapshot(self) -> list[Tensor]:
        return [self._generator.get_state(), *(tensor.clone() for tensor in self._state())]

    def _restore(self, snapshot: list[Tensor]) -> None:
        self._generator.set_state(snapshot[0])
        for tensor, kept in zip(self._state(), snapshot[1:], strict=True):
            tensor.copy_(kept)


def take_on(stream: torch.cuda.Stream, step: Step, *inputs: Tensor) -> Tensor:
    """Run a step eagerly on the stream of the capture, so that torch makes its allocations for that stream."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loss = step(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    return loss


def record(stream: torch.cuda.Stream, step: Step, inputs: tuple[Tensor, ...]) -> Step:
    """Capture a step as a CUDA graph for inputs with these shapes, without executing it.

    Raises:
        RuntimeError: if the step cannot be captured, for example because it synchronizes with the GPU.
    """
    places = [tensor.clone() for tensor in inputs]
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    gc.collect()  # a capture fails if the garbage collector frees GPU memory during it
    try:
        with torch.cuda.graph(graph, stream=stream):
            loss = step(*places)
    finally:
        torch.cuda.set_stream(before)  # after a failed capture, its stream would remain current

    def replay(*inputs: Tensor) -> Tensor:
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return loss.clone()

    return replay
