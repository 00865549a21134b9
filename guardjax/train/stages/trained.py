"""What all stages share: what is trained, its optimiser, its data, its beginning and its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from guardjax.data.sources import iterate
from guardjax.train.compilation import CountedJit
from guardjax.train.config import StageConfig
from guardjax.train.optim import make_optimizer, make_schedule
from guardjax.train.recipe import make_recipe, start_stage
from guardjax.train.sharding import Placement, on_one_device
from guardjax.train.state import Bundle, Params
from guardjax.train.steps import LossFn, make_train_step


class Program(NamedTuple):
    """A function that a step runs on the device, and its arguments or their shapes."""

    jit: CountedJit
    args: tuple[Any, ...]


class TrainedStage:
    """A stage that a loss trains. Subclasses give the loss, and arrays for a batch, in `step`."""

    jits: list[CountedJit]
    with_reference = False      # whether the loss looks at the model as the stage finds it

    def __init__(self, config: StageConfig, source: Any, seed: int,
                 freeze: Sequence[str] | None = None, updates: int = 1,
                 placement: Placement | None = None):
        """`source` gives batch by index; `freeze` replaces the config's.

        `updates` are taken each step; warm-up and schedule count updates. With a `placement`,
        `init` and `step` are to be called under `jax.set_mesh` of its mesh.
        """
        self.name, self.num_steps, self.updates = config.name, config.steps, updates
        self.recipe = make_recipe(config.freeze if freeze is None else freeze, config.lora)
        self.keep_adapters: Callable[[Params], None] = lambda adapters: None
        self._optim, self._source, self._seed = config.optim, source, seed
        self._placement = placement
        self._num_updates = config.steps * updates
        self._tx = make_optimizer(config.optim, self._num_updates)

    def init(self, bundle: Bundle) -> Bundle:
        """Splits trained from frozen parameters and opens the data."""
        bundle = self.start(bundle)
        put = on_one_device if self._placement is None else self._placement.put
        state, frozen, ref = put((bundle.state, bundle.frozen, bundle.ref_params))
        return bundle.replace(state=state, frozen=frozen, ref_params=ref,
                              data_iterator=iterate(self._source))

    def start(self, bundle: Bundle) -> Bundle:
        """As `init`, without the data: for arrays, and for their shapes in `jax.eval_shape`."""
        return start_stage(self.recipe, bundle, self._tx, seed=self._seed,
                           with_reference=self.with_reference)

    def finish(self, bundle: Bundle) -> Bundle:
        """All parameters, nothing else; adapters go to `keep_adapters` first."""
        if adapters := self.recipe.adapters(bundle.state.params):
            self.keep_adapters(adapters)
        return bundle.finished()

    def _make_step(self, loss: LossFn, name: str, micro_batches: int = 1) -> CountedJit:
        schedule = make_schedule(self._optim, self._num_updates)
        return make_train_step(loss, self._tx, name=name, schedule=schedule,
                               micro_batches=micro_batches, placement=self._placement)

    def _update(self, bundle: Bundle, arrays: Any) -> tuple[Bundle, Any, None]:
        """One update by the only program of the stage."""
        state, metrics = self.jits[0](bundle.state, bundle.frozen, self._spread(arrays))
        return bundle.replace(state=state), metrics, None

    def _own(self, arrays: Any) -> Any:
        """Of host arrays of a whole batch, the rows of this process."""
        return arrays if self._placement is None else self._placement.own(arrays)

    def _spread(self, arrays: Any) -> Any:
        """The arrays of a batch where the mesh wants them; as they are on one device."""
        return arrays if self._placement is None else self._placement.put_batch(arrays)
