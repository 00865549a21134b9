"""Our side: stage `grpo` as a run has it. `python -m step_parts.ours FOLDER`, see `turns.py`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np
from PIL import Image
from step_parts.turns import Turns, fingerprint

import guardjax.models as models
from guardjax.data.batching import Batcher, load_batcher
from guardjax.data.sources import Batch
from guardjax.rl.model_fns import bind
from guardjax.rl.transform import LogitTransform
from guardjax.train.compilation import enable_compile_cache
from guardjax.train.config import OptimConfig, RLConfig, StageConfig
from guardjax.train.stages.grpo import GRPOStage
from guardjax.train.stages.model import StageModel
from guardjax.train.state import Bundle
from guardjax.types import PolicyExample

STEPS = 1_000_000       # of the schedule: as good as constant


class Endless(StageModel):
    """A model that cannot end an answer: every answer is as long as it may be."""

    def transform(self, temperature: float = 1.0) -> LogitTransform:
        """As `StageModel`, without the end token."""
        usual = super().transform(temperature)
        allowed = usual.allowed.at[self.batcher.tokenizer.end_id].set(False)
        return usual.replace(allowed=allowed)


@dataclasses.dataclass(frozen=True)
class Source:
    """The same prompts at every step, made into arrays anew each time."""

    examples: tuple[PolicyExample, ...]
    batcher: Batcher

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> Batch:
        nothing = np.zeros((len(self.examples), 1, 1), np.int32)
        return Batch(self.examples, self.batcher.prompts(self.examples), nothing, nothing[..., 0])


def main(folder: pathlib.Path) -> None:
    """Takes turns until there are no more."""
    turns = Turns()
    enable_compile_cache()
    case = json.loads((folder / "case.json").read_text())
    # No prompt is padded, on either side.
    batcher = dataclasses.replace(load_batcher(folder), prompt_buckets=(case["prompt"],))
    cfg, params = models.load_hf(folder)
    examples = tuple(
        PolicyExample(str(place), "judge", row["question"], row["policy"], label="safe",
                      image=np.asarray(Image.open(folder / row["picture"])))
        for place, row in enumerate(case["rows"]))
    reward = pathlib.Path(__file__).with_name("reward.py")
    config = StageConfig(
        kind="grpo", steps=STEPS, batch=case["prompts"],
        optim=OptimConfig(lr=1e-6, schedule="linear", b2=0.999),
        rl=RLConfig(group_size=case["group"], max_tokens=case["tokens"], kl_coef=0.0,
                    reward=f"{reward}:by_place"))
    source = Source(examples, batcher)
    stage = GRPOStage(config, Endless(cfg, bind(models, cfg), batcher), source, seed=0)
    turns.loaded(versions=f"jax {jax.__version__}")
    bundle = stage.init(Bundle(frozen=params))
    del params
    for step in range(STEPS):
        turns.begin()
        batch = source[step]
        bundle, metrics, shown = stage.step(bundle, batch)
        jax.block_until_ready(bundle.state)
        bundle = bundle.replace(clock=bundle.clock.tick(0.0))
        (rollout,) = shown.rollouts
        turns.end(prompt_tokens=case["group"] * int(batch.prompts.prompt.mask.sum()),
                  answer_tokens=int(rollout.samples.length.sum()),
                  prompts=[fingerprint(row) for row in batch.prompts.prompt.tokens],
                  updates=int(bundle.state.updates))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
