"""The other side: TRL's `GRPOTrainer`, in an environment of its own. See `turns.py`.

`PYTHON -m step_parts.peer FOLDER`, where PYTHON has trl and torch, and need not have guardjax.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
from typing import Any

import datasets
import torch
import transformers
import trl
from PIL import Image
from step_parts.reward import by_place
from step_parts.turns import Turns, fingerprint


class PictureProcessor(transformers.Qwen2_5_VLProcessor):
    """Qwen's processor without its part for videos, which would need torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


class Trainer(trl.GRPOTrainer):
    """Keeps the last batch that was generated, to count its tokens."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.batch = super()._generate_and_score_completions(inputs)
        return self.batch


class Pace(transformers.TrainerCallback):
    """A step only in this side's turn. Getting rows from the data set is left out of the time."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.trainer: Trainer | None = None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._turns.begin()

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        batch, group = self.trainer.batch, self.trainer.num_generations
        self._turns.end(
            prompt_tokens=int(batch["prompt_mask"].sum()),
            answer_tokens=int(batch["completion_mask"].sum()),
            prompts=[fingerprint(row) for row in batch["prompt_ids"][::group].tolist()],
            updates=state.global_step)


def main(folder: pathlib.Path, checkpointing: bool) -> None:
    """Takes turns until there are no more."""
    turns, pace = Turns(), None
    torch.set_num_threads(1)
    case = json.loads((folder / "case.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    processor = PictureProcessor(
        image_processor=transformers.AutoImageProcessor.from_pretrained(folder),
        tokenizer=tokenizer, chat_template=tokenizer.chat_template)
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa")
    rows = [{"prompt": [{"role": "system", "content": row["system"]},
                        {"role": "user", "content": f"policy: {row['policy']}\n{row['question']}"}],
             "image": Image.open(folder / row["picture"])} for row in case["rows"]]
    pace = Pace(turns)
    with tempfile.TemporaryDirectory() as out:
        args = trl.GRPOConfig(
            out, use_cpu=True, bf16=False, gradient_checkpointing=checkpointing,
            per_device_train_batch_size=case["prompts"] * case["group"],
            num_generations=case["group"], max_completion_length=case["tokens"],
            generation_kwargs={"min_new_tokens": case["tokens"], "use_cache": True},
            loss_type="grpo", beta=0.0, learning_rate=1e-6, max_steps=1_000_000,
            shuffle_dataset=False, report_to="none", logging_strategy="no", save_strategy="no",
            disable_tqdm=True)
        trainer = Trainer(model=model, processing_class=processor, reward_funcs=by_place,
                          args=args, train_dataset=datasets.Dataset.from_list(rows),
                          callbacks=[pace])
        pace.trainer = trainer
        turns.loaded(versions=f"trl {trl.__version__}, transformers {transformers.__version__}, "
                              f"torch {torch.__version__}")
        trainer.train()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), checkpointing="--checkpointing" in sys.argv)
