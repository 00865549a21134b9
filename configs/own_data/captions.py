r"""Captions of a person's own pictures: SFT that teaches to see, before anything is judged.

    guardjax pairs recaption --pictures PHOTOS --out my_captions --assessor-url URL ...
    guardjax data check --format captions my_captions
    guardjax train --config configs/own_data/captions.py --out runs/captions \
        dataset.dir=my_captions

Stage 1 of SafeGuard-VL: captions keep what matters to safety and hold no verdict. Verdicts are
learned by a run that starts from the result: base=runs/captions/model, and
lengths.answer=12,24,48,64 so that the guard may write no more than verdicts need. See
`guardjax/data/datasets/captions.py` for what the folder may look like.
"""

import ml_collections


def get_config():
    """The run's config; paths and everything else can be changed on the command line."""
    config = ml_collections.ConfigDict()
    config.name = "captions"
    config.base = "base"
    config.dataset = {"format": "captions", "dir": "my_captions"}
    # A verdict is short; a caption that an assessor wrote is a paragraph.
    config.lengths = {"answer": (12, 24, 48, 64, 96, 192, 384, 768)}
    # As in configs/safeguard_vl: what the tower sees and the words it is told in stay as they are.
    config.stages = (ml_collections.ConfigDict({
        "kind": "sft", "steps": 100, "batch": 16, "data": {"caption": 1.0},
        "freeze": ("visual", "model/embed_tokens"), "optim": {"lr": 1e-4, "warmup_steps": 10}}),)
    return config
