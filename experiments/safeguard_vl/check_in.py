"""Copies the results of `guardjax experiment` here, small enough for a repository.

    python experiments/safeguard_vl/check_in.py runs/safeguard_vl
    python experiments/safeguard_vl/check_in.py runs/rivals rivals.json

Lines of single seeds are left out where a row has one seed only (they repeat its mean) and where
something is held out, and levels of the ladder but for what the level matrix shows. `looks.jsonl`
only ever grows.
"""

from __future__ import annotations

import pathlib
import sys
from collections import defaultdict

from guardjax.eval.matrix import METRIC
from guardjax.eval.tables import load_results, save_results

HERE = pathlib.Path(__file__).parent
SEEDED = ("test", "ladder")     # splits of which every seed is kept


def check_in(run: pathlib.Path, name: str = "results.json") -> tuple[int, int]:
    """Returns how many results and how many new looks were kept."""
    rows = load_results(run / "results.json")
    seeds = defaultdict(set)
    for row in rows:
        seeds[row.variant].add(row.seed)
    kept = [row for row in rows
            if (row.seed is None or len(seeds[row.variant]) > 2 and row.split in SEEDED)
            and ("/" not in row.split or (row.metric == METRIC and row.seed is None))]
    save_results(HERE / name, kept)
    looks = HERE / "looks.jsonl"
    known = looks.read_text(encoding="utf-8").splitlines() if looks.exists() else []
    new = [line for line in (run / "looks.jsonl").read_text(encoding="utf-8").splitlines()
           if line not in known]
    looks.write_text("".join(f"{line}\n" for line in [*known, *new]), encoding="utf-8")
    return len(kept), len(new)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    results, looked = check_in(pathlib.Path(sys.argv[1]), *sys.argv[2:])
    print(f"{results} results, {looked} new looks")
