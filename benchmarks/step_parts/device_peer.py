"""The other side on an accelerator: transformers with PEFT's adapters and a loop by hand.

`PYTHON -m step_parts.device_peer FOLDER`, where PYTHON has torch, transformers and peft, and FOLDER
a `config.json` and a `shape.json`. See `turns.py`. A prompt is repeated for each of its answers.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable

import peft
import torch
import transformers
from step_parts.turns import Turns
from transformers.initialization import no_init_weights


def main(folder: pathlib.Path) -> None:
    """Takes turns until there are no more."""
    turns = Turns()
    shape = json.loads((folder / "shape.json").read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = transformers.Qwen2_5_VLConfig.from_pretrained(folder)
    with no_init_weights(), torch.device(device):
        net = transformers.Qwen2_5_VLForConditionalGeneration._from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa")
    net.tie_weights()
    with torch.no_grad():
        for name, leaf in net.named_parameters():
            leaf.fill_(1) if "norm" in name else leaf.normal_(0, 0.02)
    net = peft.get_peft_model(net, peft.LoraConfig(
        r=shape["rank"], lora_alpha=16,
        target_modules=rf".*language_model.*\.({'|'.join(shape['targets'])})"))
    net.gradient_checkpointing_enable({"use_reentrant": False})
    net.enable_input_require_grads()
    optimizer = torch.optim.AdamW([leaf for leaf in net.parameters() if leaf.requires_grad], 1e-6)
    words = torch.randint(0, 800, (shape["prompts"], shape["prompt"]), device=device)
    rows = words.repeat_interleave(shape["group"], 0)
    advantages = torch.arange(len(rows), device=device) % 2 * 2.0 - 1

    def seconds(run: Callable[[], object]) -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def sample(tokens: int) -> torch.Tensor:
        net.eval()      # checkpointing would switch the cache off
        with torch.no_grad():
            return net.generate(
                input_ids=rows, attention_mask=torch.ones_like(rows), do_sample=True, top_k=0,
                max_new_tokens=tokens, min_new_tokens=tokens, use_cache=True, pad_token_id=0)

    def update() -> None:
        net.train()
        num = shape["tokens"]
        logits = net(input_ids=answered[:, :-1], use_cache=False, logits_to_keep=num).logits
        logp = torch.stack([
            torch.log_softmax(row.float(), -1).gather(-1, wanted[:, None])[:, 0]
            for row, wanted in zip(logits, answered[:, -num:])])
        ratio = torch.exp(logp - logp.detach())
        loss = -(ratio * advantages[:, None]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    answered = sample(shape["tokens"])
    if answered.shape[1] != shape["prompt"] + shape["tokens"]:
        raise ValueError(f"{answered.shape[1] - shape['prompt']} tokens were sampled and not "
                         f"{shape['tokens']}")
    sample(1), update()
    turns.loaded(versions=f"transformers {transformers.__version__}, torch {torch.__version__}, "
                          f"peft {peft.__version__}", device=device)
    while True:
        turns.begin()
        whole, first = (seconds(lambda n=n: sample(n)) for n in (shape["tokens"], 1))
        turns.end(decode=(whole - first) / (shape["tokens"] - 1), update=seconds(update))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
