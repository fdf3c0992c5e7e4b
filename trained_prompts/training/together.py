"""One run by several processes, as `accelerate launch` starts them: each reads a part of every step's examples, and all make the same step.

The gradient is the sum of their parts', so the run is the one of a single process, but for rounding. accelerate finds each process its device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.models.computing import device_of

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

_STARTED_BY_IT = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")  # in the environment of each process
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Together:
    """A process among those that train one run together; alone it does everything itself.

    Attributes
    ----------
    size, rank : how many they are, and which of them this is, from 0. The first one keeps the run and says how it goes.
    device : where this process computes: what was asked for, or among several the card of its own that accelerate gives it.
    """

    size: int = 1
    rank: int = 0
    device: str | None = None

    def check_same(self, steps_done: int) -> None:
        """Refuse processes that begin at different steps.

        Raises
        ------
        InputError
        """
        if self.size == 1:
            return
        from accelerate.utils import gather

        done = gather(torch.tensor([steps_done], device=self.device)).tolist()
        if len(set(done)) > 1:
            raise InputError(
                f"These processes do not find the same checkpoint (steps {done}); they need one folder of runs that all of them see."
            )

    def share(self, parts: list[_Part]) -> list[_Part]:
        """Those of a step's parts that are this process's."""
        return parts[self.rank :: self.size]

    def add_up(self, loss: float, parameters: list[torch.Tensor]) -> float:
        """The loss and the gradients of all parts, from those of this process: every process then has the same."""
        if self.size == 1:
            return loss
        from accelerate.utils import reduce

        for parameter in parameters:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = reduce(own, reduction="sum")
        return float(reduce(torch.tensor(loss, device=self.device), reduction="sum"))


ALONE = Together()


def of_this_process(device: str | None = None) -> Together:
    """This process among those that were started with it; to be asked once, by what trains a run for `accelerate launch`.

    Parameters
    ----------
    device : that was asked for; the best there is when None.

    Raises
    ------
    InputError
        There is no such device, several processes would compute on a single card, or accelerate does not find the others.
    """
    if not all(name in os.environ for name in _STARTED_BY_IT) or int(os.environ["WORLD_SIZE"]) == 1:
        return Together(device=device)
    from accelerate import PartialState

    if device is not None and ":" in device:
        raise InputError(f"Each of these processes takes a card of its own, and {device} is a single one; leave its number out.")
    on_cpu = device_of(device) == "cpu"
    here, cards = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if not on_cpu and cards < here:
        raise InputError(f"{here} processes were started here, and there are {cards} graphics cards.")
    state = PartialState(cpu=on_cpu)
    if state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise InputError(
            f"Of {os.environ['WORLD_SIZE']} processes accelerate finds {state.num_processes}; start them by `accelerate launch` or `torchrun`."
        )
    return Together(state.num_processes, state.process_index, "cpu" if on_cpu else str(state.device))
