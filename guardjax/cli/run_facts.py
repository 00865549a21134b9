"""What all processes of a run must have in common before they start."""

from __future__ import annotations

import hashlib
import pathlib

from guardjax.cli.assets import model_dir
from guardjax.cli.reward_files import reward_files
from guardjax.train.config import RunConfig
from guardjax.train.workdir import Claim


def run_facts(run: RunConfig, claim: Claim) -> dict[str, str]:
    """Short names of config, base, tokenizer and reward files, for `agreement.check_agreement`."""
    facts = {"config": _hash(claim.config_text.encode()), "base": claim.base}
    tokenizer: pathlib.Path = model_dir(run.base) / "tokenizer.json"
    if tokenizer.is_file():     # a run from scratch makes its own, by the config
        facts["tokenizer"] = _hash(tokenizer.read_bytes())
    if files := reward_files(run):
        facts["rewards"] = _hash(repr(files).encode())
    return facts


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
