"""Writes tests/golden/rl/trl.npz with TRL's own trainers: advantages, weights, loss, gradients.

Run where trl and torch are installed: `python -m tests.rl.make_trl_goldens`.

TRL's methods `_generate_and_score_completions` and `_compute_loss` run as they are, on a stand-in
for the trainer that holds their settings and, in place of a model, the log-probabilities of
`trl_cases.py`. Everything is float64.
"""

from __future__ import annotations

import collections
import contextlib
import pathlib
import types
from typing import Any

import accelerate
import numpy as np
import torch
import trl
from trl.rewards import get_soft_overlong_punishment
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from tests.rl.trl_cases import BATCH, BUFFER, CAP, CASES, GROUP, LIMIT, TOKENS, Case, make_inputs

TARGET = pathlib.Path(__file__).parents[1] / "golden" / "rl" / "trl.npz"
END, WORD = 1, 5


class Accelerator:
    """One process: nothing to gather."""

    device, process_index, num_processes = torch.device("cpu"), 0, 1
    is_main_process, sync_gradients = True, True

    def gather(self, value: torch.Tensor) -> torch.Tensor:
        return value

    def reduce(self, value: torch.Tensor, reduction: str) -> torch.Tensor:
        return value

    def autocast(self) -> Any:
        return contextlib.nullcontext()


def stand_in(case: Case, arrays: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
    """(what TRL's methods take for their trainer, tensors [B * G, T] by name)."""
    tensors = {name: torch.tensor(value.reshape(BATCH * GROUP, *value.shape[2:]))
               for name, value in arrays.items()}
    tensors["old"] = tensors["logp"] - case.drift * tensors["noise"]
    words = case.trl
    policy, reference = (
        types.SimpleNamespace(training=True, is_gradient_checkpointing=False) for _ in range(2))
    trainer = types.SimpleNamespace(
        args=types.SimpleNamespace(
            delta=None, use_bias_correction_kl=False, steps_per_generation=1,
            gradient_accumulation_steps=1, per_device_train_batch_size=BATCH * GROUP,
            gradient_checkpointing_kwargs=None, report_to=[]),
        accelerator=Accelerator(), model=policy, ref_model=reference,
        num_generations=GROUP, num_iterations=2,
        loss_type=words["loss_type"], beta=words["beta"], epsilon_low=words["epsilon"],
        epsilon_high=words["epsilon_high"],
        importance_sampling_level=words.get("importance_sampling_level", "token"),
        scale_rewards=words.get("scale_rewards", "group"),
        mask_truncated_completions=words.get("mask_truncated_completions", False),
        use_vllm="correction" in words,
        vllm_importance_sampling_correction="correction" in words,
        vllm_importance_sampling_mode=words.get("correction"),
        vllm_importance_sampling_clip_min=None, vllm_importance_sampling_clip_max=CAP,
        entropy_coef=words.get("entropy_coef", 0.0),
        _entropy_bonus_enabled="entropy_coef" in words, use_adaptive_entropy=False,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, aux_loss_enabled=False,
        max_completion_length=TOKENS, current_gradient_accumulation_steps=1,
        multi_objective_aggregation="sum_then_normalize", normalize_advantages=False,
        reward_clip_range=None, reward_weights=torch.ones(1, dtype=torch.float64),
        reward_funcs=[None], reward_func_names=["given"], environment_factories=None,
        environments=None, tools=None, pad_to_multiple_of=None, log_multimodal=False,
        eos_token_ids=[END], _tokenizer=types.SimpleNamespace(pad_token_id=0),
        _pending_extra_logs={}, _pending_metrics={},
        _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
        _logs={"prompt": [], "completion": [], "advantages": [],
               "rewards": collections.defaultdict(list), "extra": collections.defaultdict(list)})
    rows = range(BATCH * GROUP)
    lengths = [int(n) for n in tensors["length"]]
    answers = [[WORD] * (n - 1) + [END if tensors["ended"][i] else WORD]
               for i, n in zip(rows, lengths)]
    sampled = [(tensors["old"] - tensors["sampled_gap"])[i, :lengths[i]].tolist() for i in rows]
    prompts = [[WORD]] * len(rows)
    trainer._calculate_rewards = lambda *_: tensors["rewards"][:, None]
    if words["loss_type"] == "rloo":
        trainer._generate = lambda _: (prompts, answers, answers)
    else:
        trainer._generate = lambda _: (prompts, answers, None, answers, sampled, {}, None, None)

    def logprobs(model: Any, *_: Any, **__: Any) -> tuple[Any, Any, None]:
        name = {id(policy): "old", id(reference): "ref_logp"}.get(id(model), "logp")
        return tensors[name], tensors["entropy"], None

    trainer._get_per_token_logps_and_entropies = logprobs
    return trainer, tensors


def run(case: Case, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """TRL's answers: advantages [B, G], weights, loss [], gradients [B, G, T]."""
    trainer, tensors = stand_in(case, arrays)
    cls = RLOOTrainer if case.trl["loss_type"] == "rloo" else GRPOTrainer
    batch = cls._generate_and_score_completions(trainer, [{"prompt": "p"}] * (BATCH * GROUP))
    if case.on_policy:
        batch.pop("old_per_token_logps", None)
    for name in ("logp", "entropy"):
        tensors[name].requires_grad_(True)
    loss = cls._compute_loss(trainer, object(), batch)
    loss.backward()
    grid = (BATCH, GROUP, -1)
    found = {"loss": loss.detach(), "advantages": batch["advantages"].reshape(BATCH, GROUP),
             "grad": tensors["logp"].grad.reshape(grid)}
    if "entropy_coef" in case.trl:
        found["entropy_grad"] = tensors["entropy"].grad.reshape(grid)
    if "correction" in case.trl:
        found["weights"] = batch["importance_sampling_ratio"].reshape(grid)
    return {name: np.asarray(value) for name, value in found.items()}


def main() -> None:
    """Writes them all."""
    accelerate.PartialState()           # TRL gathers through it
    torch.set_default_dtype(torch.float64)
    arrays = make_inputs()
    saved = {"versions": np.asarray([f"trl {trl.__version__}", f"torch {torch.__version__}"])}
    saved |= {f"inputs/{name}": value for name, value in arrays.items()}
    penalty = get_soft_overlong_punishment(LIMIT, BUFFER)
    lengths = range(1, LIMIT + 1)
    saved["overlong"] = np.asarray(penalty([[WORD] * n for n in lengths]))
    for name, case in CASES.items():
        saved |= {f"{name}/{key}": value for key, value in run(case, arrays).items()}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **saved)
    print(f"wrote {TARGET}: {TARGET.stat().st_size} bytes, {', '.join(saved['versions'])}")


if __name__ == "__main__":
    main()
