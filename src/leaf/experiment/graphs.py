"""A training step recorded as a CUDA graph: one call to the GPU in place of the hundreds that its operations are.

The experiment's networks are so small that a GPU is done with an operation before Python has asked for the next one.
"""

import gc
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[..., Tensor]
"""Takes a minibatch's tensors, changes parameters and what optimizers remember in place, and gives the loss."""


def recorded(step: Step, state: Callable[[], list[Tensor]], minibatch: int, device: torch.device) -> Step:
    """The same step, recorded where the device can; see ``RecordedStep``."""
    if device.type != "cuda":
        return step
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    return RecordedStep(step, state, minibatch, generator, torch.cuda.Stream())


class RecordedStep:
    """A step that is replayed from its third full minibatch on, with the numbers that it would give as it comes.

    The first one is taken as it comes, so that all is there that a step makes but once. The second is taken twice from
    the same place, as it comes and replayed: the record is used from then on if both end in the same bits, and
    otherwise never.

    Args:
        step: does nothing besides working on tensors of one GPU.
        state: gives the tensors that it changes.
        minibatch: images of a full one; others are taken as they come.
        generator: what the step draws from.
        stream: where it is recorded.
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
            trouble = "" if all(map(torch.equal, [loss, *after], replayed)) else "replayed it gives other numbers"
        except RuntimeError as error:
            cause = error.__context__ or error  # what stopped the recording, not what that led to
            trouble = (str(cause) or repr(cause)).splitlines()[0]
        if trouble:
            self._take = self._step
            self._restore(after)
            warnings.warn(
                f"training steps cannot be recorded as a CUDA graph, which is slower: {trouble}", stacklevel=2
            )
        return loss

    def _snapshot(self) -> list[Tensor]:
        return [self._generator.get_state(), *(tensor.clone() for tensor in self._state())]

    def _restore(self, snapshot: list[Tensor]) -> None:
        self._generator.set_state(snapshot[0])
        for tensor, kept in zip(self._state(), snapshot[1:], strict=True):
            tensor.copy_(kept)


def take_on(stream: torch.cuda.Stream, step: Step, *inputs: Tensor) -> Tensor:
    """Take a step as it comes, on the stream where it is to be recorded: what torch makes once for a stream is made."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loss = step(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    return loss


def record(stream: torch.cuda.Stream, step: Step, inputs: tuple[Tensor, ...]) -> Step:
    """A step as a graph of what it asks the GPU for with inputs of these shapes; it is recorded, not taken.

    Raises:
        RuntimeError: if it does what cannot be recorded, such as waiting for the GPU.
    """
    places = [tensor.clone() for tensor in inputs]
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    gc.collect()  # what it would otherwise free while the step is recorded would stop that
    try:
        with torch.cuda.graph(graph, stream=stream):
            loss = step(*places)
    finally:
        torch.cuda.set_stream(before)  # a recording that was stopped leaves its own the current one

    def replay(*inputs: Tensor) -> Tensor:
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return loss.clone()

    return replay
