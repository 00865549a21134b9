"""Rate and reference penalty of the row grpo_varied, two seeds each, at half its steps.

    guardjax sweep --config configs/safeguard_vl/sweep_grpo.py --out runs/sweep
"""

import pathlib
import runpy

rows = runpy.run_path(str(pathlib.Path(__file__).with_name("rows.py")))


def get_config():
    """What all trials share."""
    config = rows["row"]("grpo", "varied")
    config.name = "sweep_grpo"
    config.stages[0].steps = 125
    return config


def sweep(add):
    """Every trial; the table has a line for each pair of values, over its seeds."""
    for lr in (5e-5, 1e-4, 2e-4):
        for kl_coef in (0.0, 0.01):
            for seed in (0, 1):
                add({"stages.0.optim.lr": lr, "stages.0.rl.kl_coef": kl_coef}, seed=seed)
