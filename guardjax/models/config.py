"""The shape of a model: frozen dataclasses whose fields are named as Qwen2.5-VL's in Hugging Face.

Another family is other values of the same fields (`guardjax.models.families`), and for LLaVA
another tower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from guardjax.models.attention.backends import check_name
from guardjax.models.families import FAMILIES
from guardjax.models.family import Section
from guardjax.models.tower_config import ClipConfig, VisionConfig

Remat = Literal["none", "dots", "full"]


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The decoder.

    `mrope_section` shares out the head's frequencies to time, row and column; where time has all,
    positions are plain (`plain_positions`). `attention_bias` is that of queries, keys and values.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    mrope_section: tuple[int, int, int]
    rope_theta: float = 1000000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 128000
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    attention_bias: bool = True

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} does not divide into "
                             f"{self.num_attention_heads} heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(f"{self.num_attention_heads} query heads do not divide over "
                             f"{self.num_key_value_heads} key/value heads")
        if len(self.mrope_section) != 3 or 2 * sum(self.mrope_section) != self.head_dim:
            raise ValueError(f"mrope_section {self.mrope_section} must be three numbers whose sum "
                             f"is half the head size {self.head_dim}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def plain_positions(self) -> bool:
        """Whether the tokens of pictures are counted like words."""
        return self.mrope_section[1:] == (0, 0)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A whole model. Hashable, so that it can be a static argument of `jax.jit`.

    `family` is a name in `FAMILIES`: what its files look like. The last four say how it is run and
    stand in no file. `dtype` is the compute type; the parameters keep the type they have.
    `attention` is one of `attention.BACKENDS`. `scan_layers` stacks the parameters of equal layers
    and compiles one layer instead of all (`guardjax.models.stacking`). `remat` says what the
    backward pass computes again to save memory (`guardjax.models.remat`).
    """

    vision: VisionConfig | ClipConfig
    text: TextConfig
    family: str = "qwen2_5_vl"
    image_token_id: int = 151655
    video_token_id: int | None = 151656
    vision_start_token_id: int | None = 151652
    vision_end_token_id: int | None = 151653
    tie_word_embeddings: bool = False
    dtype: str = "float32"
    attention: str = "xla"
    scan_layers: bool = False
    remat: Remat = "none"

    def __post_init__(self) -> None:
        check_name(self.attention)
        if self.remat not in get_args(Remat):
            raise ValueError(f"remat is {self.remat!r}; it must be one of "
                             f"{', '.join(get_args(Remat))}")
        if self.vision.out_hidden_size != self.text.hidden_size:
            raise ValueError(f"vision out_hidden_size {self.vision.out_hidden_size} differs from "
                             f"text hidden_size {self.text.hidden_size}")
        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}; it must be one of {', '.join(FAMILIES)}")
        family = FAMILIES[self.family]
        if not isinstance(self.vision, family.tower):
            raise ValueError(f"vision is a {type(self.vision).__name__}; in a model of family "
                             f"{self.family} it must be a {family.tower.__name__}")
        for part, fixed in ((self.vision, family.fixed), (self.text, family.fixed_text)):
            for name, value in fixed.items():
                if getattr(part, name) != value:
                    raise ValueError(f"{name} is {getattr(part, name)!r}; in a model of family "
                                     f"{self.family} it must be {value!r}")

    @property
    def architecture(self) -> str:
        """The class of transformers that loads its checkpoints."""
        return FAMILIES[self.family].architecture

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], *, dtype: str = "float32") -> ModelConfig:
        """Reads a `config.json` of one of `FAMILIES`.

        Raises:
            ValueError: another architecture, a missing key, or a feature that is not implemented.
        """
        name = raw.get("model_type")
        if not isinstance(name, str) or name not in FAMILIES:
            raise ValueError(f"unknown architecture: model_type is {name!r}; what can be read is "
                             f"{' or '.join(map(repr, FAMILIES))}")
        family = FAMILIES[name]
        vision, text, own = family.read(raw)
        return cls(vision=_fill(family.tower, vision), text=_fill(TextConfig, text), family=name,
                   dtype=dtype, **own)

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` of this model, readable by transformers 4 and 5."""
        own = dataclasses.asdict(self)
        return {"architectures": [self.architecture], "model_type": self.family,
                **FAMILIES[self.family].write(own.pop("vision"), own.pop("text"), own)}


# By the type of a field, the least that a file may say.
_LEAST = {"int": 1, "int | None": 0}


def _fill(cls: type, section: Section) -> Any:
    """Builds `cls` from a section's fields, then its keys, then defaults; names what is missing."""
    fields = dict(section.fields)
    for field in dataclasses.fields(cls):
        key = section.keys.get(field.name, field.name)
        if field.name not in fields:
            if section.raw.get(key) is not None:
                fields[field.name] = section.raw[key]
            elif field.default is dataclasses.MISSING:
                raise ValueError(f"config has no {key} in {section.where}")
        value = fields.get(field.name, field.default)
        least = _LEAST.get(field.type)
        if field.type == "int | None" and value is None:
            continue
        if least is not None and not (type(value) is int and least <= value < 2**31):
            raise ValueError(f"{key} in {section.where} is {value!r}; it must be a whole number "
                             f"between {least} and 2,147,483,647")
    return cls(**fields)
