"""The engine that a stage samples with, if it names one."""

from __future__ import annotations

import pathlib

from guardjax.rl.engine import Engine
from guardjax.train.config import StageConfig
from guardjax.train.stages.model import StageModel
from guardjax.train.stages.sampler import engine_decoding

FOLDER = "engine"       # of a run: weights on their way, removed when the stage ends


def connect_engine(config: StageConfig, model: StageModel, folder: pathlib.Path) -> Engine:
    """The engine of `rl.engine`, checked against the model.

    Raises:
      EngineError: it does not answer, or has another model or tokenizer.
    """
    # Only for runs that have one.
    from guardjax.engines.remote import Limits, connect
    from guardjax.engines.weights import WeightFolder

    rl = config.rl
    return connect(
        rl.engine, rl.engine_url.rstrip("/"),
        weights=WeightFolder(folder / FOLDER / config.name, model.cfg), batcher=model.batcher,
        decoding=engine_decoding(config, model),
        limits=Limits(rl.engine_seconds, rl.engine_retry_seconds, rl.engine_requests))
