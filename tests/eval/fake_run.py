"""Random predictions with every feature: pairs, policies, invalid answers, captions."""

from __future__ import annotations

import numpy as np

from guardjax.eval.records import Prediction


def fake_predictions(
    *, variant: str = "a", seed: int = 0, split: str = "test", num_pairs: int = 12,
    num_policies: int = 6, per_image: int = 4, skill: float = 0.7, invalid: float = 0.1,
    data_seed: int = 7,
) -> list[Prediction]:
    """Pictures come in edited pairs; each pair is judged under `per_image` policies.

    The gold labels depend on `data_seed` only; the answers also on `variant` and `seed`.
    """
    data = np.random.default_rng(data_seed)
    answers = np.random.default_rng([seed, *variant.encode()])
    rows = []
    for pair in range(num_pairs):
        policies = data.choice(num_policies, size=per_image, replace=False)
        for member in "ab":
            image = f"pair{pair}{member}"
            common = {"model": f"{variant}-{seed}", "variant": variant, "seed": seed,
                      "split": split, "image_id": image, "pair_id": f"pair{pair}"}
            for policy in policies:
                gold = bool(data.random() < 0.5) and policy != 0      # policy 0 bans nothing
                called = gold if answers.random() < skill else not gold
                is_invalid = answers.random() < invalid
                outcome = "needs_review" if is_invalid else "unsafe" if called else "safe"
                rows.append(Prediction(
                    **common, example_id=f"{image}/p{policy}", kind="judge",
                    policy_id=f"p{policy}", label="unsafe" if gold else "safe",
                    rule_ids=("R1",) if gold else (), output=outcome, outcome=outcome,
                    cited_rules=("R1",) if called and answers.random() < 0.8 else (),
                    problem="no_answer" if is_invalid else None))
            for kind in ("caption", "question"):
                rows.append(Prediction(
                    **common, example_id=f"{image}/{kind}", kind=kind, answer="a knife",
                    output="a  knife" if answers.random() < skill else "a spoon"))
    return rows
