"""What `benchmarks/step.py` counts, and what it refuses before it times anything."""

from __future__ import annotations

import importlib
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from guardjax.data.batching import load_batcher
from guardjax.data.prompts import encode_prompt
from guardjax.types import PolicyExample

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules of the folder by name, without the benchmark's pinning of this process."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("GUARDJAX_TRL_PYTHON", raising=False)
    return importlib.import_module


@pytest.mark.parametrize("arguments, message", [
    (["--turns", "0"], "--turns is 0"),
    (["--peer", "/nowhere/python"], "cannot be run"),
    (["--device", "gpu"], "JAX has no GPU here but 'cpu'")])
def test_errors_name_the_value_before_anything_is_timed(
        module, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["step.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        module("step").main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_prompts_are_exactly_as_long_as_their_case_says(module):
    cases = module("step_parts.cases")
    batcher = load_batcher(cases.BASE)
    for case in cases.CASES.values():
        policy = cases._policy(case, batcher, np.random.default_rng(1))
        example = PolicyExample("", "judge", cases.JUDGE_QUESTION, policy,
                                image=np.zeros((case.side, case.side, 3), np.uint8))
        units = (case.side // 16) ** 2
        prompt = encode_prompt(batcher.tokenizer, example, units, (4096,))
        assert len(prompt.ids) == case.prompt and prompt.num_units == units
        assert prompt.ids.count(batcher.tokenizer.image_pad_id) == units


def test_floors_of_the_3b_shape_follow_from_its_sizes(module):
    """Against the sizes written out: 36 layers of width 2,048, 151,936 words, 8 x 8 answers."""
    shape = module("step_parts.device_shapes").SHAPES["3b"]
    layer = 2048 * (2048 + 256 + 256 + 2048) + 3 * 2048 * 11008
    head = 151936 * 2048
    kept = 2 * 36 * 256 * (8 * 768 + 64 * 32)
    assert shape.step_bytes == 2 * (36 * layer + head + kept)
    tokens, answers = 8 * 768 + 64 * 63, 64 * 64
    pairs = 8 * 768**2 / 2 + 64 * 63 * (768 + 31.5)
    assert shape.update_flops == pytest.approx(
        4 * (tokens * 36 * layer + answers * head) + 3 * 4 * 36 * 2048 * pairs, rel=1e-12)
