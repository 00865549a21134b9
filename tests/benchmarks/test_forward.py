"""`benchmarks/forward.py --device`: the path for an accelerator, on a small shape and a CPU."""

import math
import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(name="forward")
def _forward(monkeypatch):
    """`forward(*words)` runs the benchmark in this process and returns its exit status."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import forward

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["forward.py", *words])
        return forward.main()

    return run


@pytest.mark.slow
def test_a_device_is_measured_against_its_own_ceilings(forward, capsys):
    assert forward("--device", "cpu", "--shape", "tiny", "--batches", "2", "--repeats", "1") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = {name: (float(value), unit) for name, value, unit, *_ in lines}
    assert found.keys() == {f"forward/{name}_tiny_b2" for name in (
        "memory", "arithmetic", "prefill_ms", "matrix", "decode_ms", "bandwidth", "floor")}
    assert all(math.isfinite(value) and value >= 0 for value, _ in found.values())
    assert found["forward/floor_tiny_b2"][0] >= found["forward/bandwidth_tiny_b2"][0]


def test_what_is_counted_is_what_the_compiler_counts(forward):
    """Beside products the compiler counts norms, softmax and rotary embedding, and whole scores."""
    from forward_parts import cases, counts, device, ours

    model = device.shape_tiny()
    rows = cases.make_rows(model, 2)
    program = ours.Ours(model, rows).prefill_program(cases.prompt_batch(model.cfg, rows))
    counted = program.cost_analysis()["flops"]
    expected = counts.prefill_flops(model.cfg, 2, model.prompt, model.side**2)
    assert expected <= counted <= 1.3 * expected


def test_the_large_shape_is_the_release(forward):
    from forward_parts import device

    from guardjax.models.config import ModelConfig
    from guardjax.models.releases import RELEASES

    release, ours = ModelConfig.from_hf(RELEASES["3B"]), device.config_3b()
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                 "num_key_value_heads", "vocab_size", "mrope_section"):
        assert getattr(ours.text, name) == getattr(release.text, name)
    for name in ("depth", "hidden_size", "intermediate_size", "num_heads", "window_size"):
        assert getattr(ours.vision, name) == getattr(release.vision, name)
    assert ours.tie_word_embeddings and release.tie_word_embeddings


def test_a_device_that_is_not_there_is_refused(forward, monkeypatch, capsys):
    import jax

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with pytest.raises(SystemExit) as stopped:
        forward("--device", "gpu")
    assert stopped.value.code == 2
    assert "--device gpu: this process computes on cpu (JAX_PLATFORMS is 'cpu')" in (
        capsys.readouterr().err)
