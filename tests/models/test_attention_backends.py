"""The choice of a back end: what each can do, refusals before any compute, and the whole model."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guardjax.cli.assets import model_dir
from guardjax.cli.training import train
from guardjax.cli.main import main
from guardjax.eval.guard import Guard
from guardjax.models import qwen2_5_vl as model
from guardjax.models.attention import BACKENDS, AttentionError, choose_backend, cudnn, splash
from guardjax.models.attention.backends import Device, this_device
from guardjax.models.cache import open_buffer
from guardjax.models.tiny import tiny_config
from guardjax.train.config import ConfigError, RunConfig, resolve
from guardjax.types import Segment
from tests.models.reference_cases import SMALLEST, make_inputs, make_row

CPU, TPU = Device("cpu"), Device("tpu")
HOPPER, AMPERE, VOLTA = (Device("gpu", (n, 0)) for n in (9, 8, 7))
ROCM = Device("gpu")
RELEASED = {"text": 128, "vision": 80}

# The least in which attention passes through every kind of layer, for programs are slow to compile.
SMALL = dataclasses.replace(
    SMALLEST, text=dataclasses.replace(SMALLEST.text, num_hidden_layers=1),
    vision=dataclasses.replace(SMALLEST.vision, depth=1, fullatt_block_indexes=(0,)))
KERNELS = {"cudnn": functools.partial(cudnn.attend, implementation="xla"),
           "splash": functools.partial(splash.attend, interpret=True)}
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="says what a CPU is told")


@pytest.mark.parametrize("name, dtype, heads, device, chosen", [
    ("xla", "float32", {"text": 7}, VOLTA, "xla"),
    ("auto", "bfloat16", RELEASED, CPU, "xla"),
    ("auto", "bfloat16", RELEASED, HOPPER, "cudnn"),
    ("auto", "float16", RELEASED, AMPERE, "cudnn"),
    ("auto", "float32", RELEASED, HOPPER, "xla"),
    ("auto", "bfloat16", RELEASED, VOLTA, "xla"),
    ("auto", "bfloat16", RELEASED, ROCM, "xla"),
    ("auto", "bfloat16", {"text": 256}, AMPERE, "xla"),
    ("auto", "bfloat16", {"text": 256}, HOPPER, "cudnn"),
    ("auto", "float32", RELEASED, TPU, "splash"),
    ("auto", "float16", RELEASED, TPU, "xla"),
    ("auto", "float32", {"text": 12}, TPU, "xla"),
    ("cudnn", "bfloat16", RELEASED, AMPERE, "cudnn"),
    ("splash", "bfloat16", RELEASED, TPU, "splash"),
])
def test_what_is_chosen(name, dtype, heads, device, chosen):
    assert choose_backend(name, head_dims=heads, dtype=dtype, device=device) == chosen


@pytest.mark.parametrize("name, dtype, heads, device, message", [
    ("flash", "bfloat16", RELEASED, TPU, "'flash' is no back end; choose one of 'auto', 'xla'"),
    ("cudnn", "bfloat16", RELEASED, CPU, "needs an NVIDIA GPU.*on 'cpu'.*attention='xla'"),
    ("cudnn", "bfloat16", RELEASED, TPU, "needs an NVIDIA GPU.*on 'tpu'"),
    ("cudnn", "bfloat16", RELEASED, ROCM, "needs an NVIDIA GPU"),
    ("cudnn", "bfloat16", RELEASED, VOLTA, "needs compute capability 8.0.*has 7.0"),
    ("cudnn", "float32", RELEASED, HOPPER, "dtype is 'float32': set dtype='bfloat16'"),
    ("cudnn", "bfloat16", {"text": 136}, AMPERE, "at most 128 numbers.*those of text have 136"),
    ("cudnn", "bfloat16", {"vision": 12}, HOPPER, "multiple of 8.*those of vision have 12"),
    ("splash", "bfloat16", RELEASED, HOPPER, "needs a TPU.*on 'gpu'"),
    ("splash", "float16", RELEASED, TPU, "bfloat16 or float32, and dtype is 'float16'"),
    ("splash", "bfloat16", {"text": 512}, TPU, "at most 256 numbers.*those of text have 512"),
])
def test_what_is_refused(name, dtype, heads, device, message):
    with pytest.raises(AttentionError, match=message):
        choose_backend(name, head_dims=heads, dtype=dtype, device=device)


@on_cpu
def test_a_cpu_is_told_before_any_compute():
    """At the model, at a guard's loading, and at a run's start, with nothing made on the disk."""
    assert this_device() == CPU
    with pytest.raises(AttentionError, match="no back end"):
        dataclasses.replace(SMALLEST, attention="fast")
    asked = dataclasses.replace(SMALLEST, attention="cudnn", dtype="bfloat16")
    with pytest.raises(AttentionError, match="NVIDIA GPU"):
        model.text_decoder(asked)
    with pytest.raises(AttentionError, match="NVIDIA GPU"):
        model.encode_images({}, asked, None)        # whose arguments are never looked at
    with pytest.raises(AttentionError, match="needs a TPU"):
        Guard.load(model_dir("guard"), attention="splash")


def test_programs_are_made_for_the_device_of_the_mesh():
    """A mesh of chips that are only described, as `guardjax aot` has."""
    chip = jax.sharding.AbstractDevice(device_kind="TPU v6 lite", num_cores=1, platform="tpu")
    mesh = jax.sharding.AbstractMesh((2,), ("data",), abstract_device=chip)
    asked = dataclasses.replace(tiny_config(512), attention="auto")
    with jax.sharding.use_abstract_mesh(mesh):
        assert this_device() == TPU and model.attention_backend(asked) == "splash"


@on_cpu
def test_judge_is_told_its_flag(tmp_path, capsys):
    examples = model_dir("guard").parent / "examples"
    status = main(["judge", str(examples / "dog.png"), "--policy",
                   str(examples / "no-animals.yaml"), "--out", str(tmp_path / "out.jsonl"),
                   "--attention", "splash", "--dtype", "bfloat16"])
    assert status == 2 and not list(tmp_path.iterdir())
    assert "guardjax judge: attention='splash' needs a TPU" in capsys.readouterr().err


@on_cpu
def test_a_run_is_told_its_key(tmp_path):
    stage = {"kind": "sft", "steps": 1}
    run = resolve({"name": "x", "stages": [stage]}, ["attention=cudnn", "dtype=bfloat16"])
    with pytest.raises(ConfigError, match="^attention='cudnn' needs an NVIDIA GPU"):
        train(run, tmp_path / "run", None)
    assert not list(tmp_path.iterdir())


def test_a_run_can_name_every_back_end():
    assert typing.get_args(typing.get_type_hints(RunConfig)["attention"]) == BACKENDS
    assert RunConfig("x", ()).attention == model.ModelConfig(
        SMALLEST.vision, SMALLEST.text).attention == "xla"


@pytest.fixture(name="batch", scope="module")
def make_batch():
    """Two prompts with one and two images, and three answers of four tokens to each."""
    rows = [make_row(SMALL, name) for name in ("odd_grid", "two_images")]
    prompt, vision = make_inputs(SMALL, rows)
    start = prompt.positions.max(axis=(1, 2)) + 1
    positions = start[:, None, None, None] + np.arange(4)[:, None]
    positions = np.broadcast_to(positions, (2, 3, 4, 3)).astype(np.int32)
    mask = np.ones((2, 3, 4), bool)
    mask[0, 1, 2:] = False
    tokens = np.random.default_rng(0).integers(0, 80, (2, 3, 4), dtype=np.int32)
    return prompt, vision, Segment(tokens, positions, mask)


@pytest.fixture(name="params", scope="module")
def make_params():
    return model.init_params(SMALL, jax.random.key(0))


def loss_and_answers(params, batch):
    """A loss over every answer token, and the answers' hidden states."""
    prompt, vision, answers = batch
    features = model.encode_images(params, SMALL, vision)
    (_, hidden), _ = model.forward(params, SMALL, (prompt, answers), features)
    logp = jax.nn.log_softmax(model.unembed(params, SMALL, hidden))
    chosen = jnp.take_along_axis(logp, answers.tokens[..., None], axis=-1)[..., 0]
    return jnp.where(answers.mask, chosen, 0).sum(), hidden


def decoded(params, batch):
    """The hidden state of every answer's first token, by prefill and a step of decoding."""
    prompt, vision, answers = batch
    features = model.encode_images(params, SMALL, vision)
    _, cache = model.forward(params, SMALL, (prompt,), features)
    first = jax.tree.map(lambda x: x[:, :, :1], answers)
    (hidden,), _ = model.forward(params, SMALL, (first,), None,
                                 open_buffer(SMALL, cache, (2, 3), 4))
    return hidden[:, :, 0]


@pytest.fixture(name="expected", scope="module")
def make_expected(params, batch):
    return jax.jit(jax.value_and_grad(loss_and_answers, has_aux=True))(params, batch)


def test_the_whole_model_in_value_and_gradient(params, batch, expected, monkeypatch):
    """Pictures, prompt and answers; the gradients of both kernels are tested beside them."""
    monkeypatch.setattr(model, "attention_backend", lambda cfg: KERNELS["cudnn"])
    (_, hidden), gradient = jax.jit(
        jax.value_and_grad(lambda *args: loss_and_answers(*args), has_aux=True))(params, batch)
    (_, other), oracle = expected
    real = batch[2].mask
    np.testing.assert_allclose(hidden[real], other[real], atol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(oracle))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), gradient,
                 oracle)


def test_decoding_goes_on_from_the_keys_that_a_kernel_left(params, batch, expected, monkeypatch):
    monkeypatch.setattr(model, "attention_backend", lambda cfg: KERNELS["splash"])
    first = jax.jit(lambda *args: decoded(*args))(params, batch)
    np.testing.assert_allclose(first, expected[0][1][:, :, 0], atol=1e-5)
