"""Self-recaption (SafeGuard-VL, stage 1): captions that keep what a policy would look at.

A draft leaves out what its model was taught not to say. The second answer restores it; it alone
becomes the target of SFT, so that what is learnt is to see, not to judge.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from guardjax.pairs.build import LeftOut, Source
from guardjax.pairs.tools import Assessor, ToolUnavailable

MAX_CAPTION = 2_000     # characters


@dataclasses.dataclass(frozen=True)
class Caption:
    """A picture by name, the draft, and the target."""

    name: str
    picture: np.ndarray     # [H, W, 3] uint8
    draft: str
    target: str


def recaption(sources: Sequence[Source], assessor: Assessor, workers: int = 4
              ) -> Iterator[Caption | LeftOut]:
    """A caption for each picture, in order; a picture that cannot be read is left out.

    Raises:
      ToolUnavailable: the assessor answers nobody.
    """
    def one(source: Source) -> Caption | LeftOut:
        try:
            picture = source.read()
            draft = assessor.caption(picture)
            target = " ".join(assessor.restore(picture, draft).split())
        except ToolUnavailable:
            raise
        except ValueError as error:
            return LeftOut(source.name, str(error))
        if not target or len(target) > MAX_CAPTION:
            return LeftOut(source.name, f"the caption has {len(target)} characters, it may have "
                                        f"1 to {MAX_CAPTION}")
        return Caption(source.name, picture, draft, target)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(one, sources)
        finally:
            pool.shutdown(cancel_futures=True)
