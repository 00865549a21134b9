"""Duplicates and leaks: found where they are, not where they are not, and reported."""

import io
import json

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import data

from guardjax.cli import main
from guardjax.data.datasets.duplicates import Look, look_at, pairs_between
from guardjax.data.datasets.registry import open_dataset
from guardjax.policies import load_policy
from tests.data import dataset_files as files



def jpeg(pixels, quality=70, size=None):
    """The same picture as a site would save it again."""
    out = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.resize(size) if size else picture).save(out, "JPEG", quality=quality)
    return out.getvalue()


def look(i, phash, dhash):
    return Look(f"row {i}", str(i), "test", f"sha{i}", phash, dhash)


def test_pairs_are_those_of_a_plain_search():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, (40, 2))
    # Every second one differs from its neighbour in few bits.
    for i in range(1, 40, 2):
        flips = rng.integers(0, 63, (2, 3))
        base[i] = [base[i - 1, k] ^ np.bitwise_or.reduce(1 << flips[k]) for k in range(2)]
    looks = [look(i, int(p), int(d)) for i, (p, d) in enumerate(base)]
    for others in (None, looks[10:30]):
        wanted = []
        for i, a in enumerate(looks):
            for j, b in enumerate(looks if others is None else others):
                bits = max((a.phash ^ b.phash).bit_count(), (a.dhash ^ b.dhash).bit_count())
                if bits <= 3 and (others is not None or j > i):
                    wanted.append((a.place, b.place, -1 if a.sha256 == b.sha256 else bits))
        found = [(p.first, p.second, p.distance) for p in pairs_between(looks, others, 3)]
        assert found == wanted and len(wanted) >= 10


def test_hashes_are_those_of_imagehash_as_text():
    picture = files.pixels(3, (40, 60))
    phash, dhash = look_at(picture)
    assert f"{phash:016x}" == str(imagehash.phash(Image.fromarray(picture)))
    assert f"{dhash:016x}" == str(imagehash.dhash(Image.fromarray(picture)))


def test_photographs_saved_again_are_alike_and_others_are_not():
    photos = [getattr(data, name)() for name in (
        "astronaut", "camera", "coffee", "chelsea", "rocket", "coins", "moon", "page", "text",
        "clock", "brick", "grass", "gravel", "hubble_deep_field")]
    photos = [p if p.ndim == 3 else np.repeat(p[..., None], 3, 2) for p in photos]
    looks = [look(i, *look_at(p)) for i, p in enumerate(photos)]
    assert pairs_between(looks) == []
    for quality, shrink in ((90, 1), (60, 0.7), (40, 0.5)):
        for i, p in enumerate(photos):
            size = tuple(int(side * shrink) for side in p.shape[1::-1])
            saved = np.asarray(Image.open(io.BytesIO(jpeg(p, quality, size))))
            found = pairs_between([look("again", *look_at(saved))], looks)
            assert [pair.second for pair in found] == [f"row {i}"] and not found[0].exact


@pytest.fixture(name="two_splits")
def _two_splits(tmp_path):
    """Train and test of a person's own; two of test are of train, one saved again."""
    rows = []
    for i in range(10):
        files.write_png(tmp_path / f"{i}.png", i)
        rows.append({"image": f"{i}.png", "label": "safe" if i % 2 else "unsafe",
                     "category": "" if i % 2 else "dark", "split": "test" if i > 6 else "train"})
    (tmp_path / "7.png").write_bytes(files.png(1))
    (tmp_path / "8.png").write_bytes(jpeg(files.pixels(2), 95))
    files.write_csv(tmp_path / "images.csv", rows)
    (tmp_path / "house.yaml").write_text(files.OWN_POLICY)
    return tmp_path


def run(folder, *words):
    return main.main(["data", "check", "--format", "own", str(folder), "--policy",
                      str(folder / "house.yaml"), *map(str, words)])


def test_leaks_are_reported_in_the_terminal_and_as_json(two_splits, tmp_path, capsys):
    out = tmp_path / "check.json"
    assert run(two_splits, "--split", "test", "--against-split", "train", "--out", out) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "split test: 3 rows of 3 pictures, 2 safe, 1 unsafe" in shown
    assert "in the other set too: 2" in shown and "house 2 1" in shown
    found = json.loads(out.read_text())
    assert not found["clean"] and found["duplicates"] == []
    pairs = {(pair["first"].rpartition("row ")[2], pair["second"].rpartition("row ")[2]):
             pair["distance"] for pair in found["leaks"]}
    assert set(pairs) == {("8", "2"), ("9", "3")} and pairs["8", "2"] == -1 < pairs["9", "3"] <= 6
    assert found["labels"] == {"house": {"safe": 2, "unsafe": 1}}
    assert run(two_splits, "--split", "train") == 0


def test_a_picture_under_many_policies_is_no_duplicate(tmp_path, capsys):
    files.safe_edit_bench(tmp_path)
    assert main.main(["data", "check", "--format", "safeeditbench", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "9 rows of 3 pictures" in shown and "twice" not in shown


def test_the_same_picture_with_two_labels_is_a_contradiction(two_splits, capsys):
    (two_splits / "0.png").write_bytes(files.png(1))
    assert run(two_splits, "--split", "train") == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "contradictions: 1" in shown and "row 1 is unsafe and" in shown
    assert "there twice: 1" in shown and "equal" in shown


def test_every_bad_row_is_listed(two_splits, capsys):
    rows = (two_splits / "images.csv").read_text().replace("0.png,unsafe", "0.png,bad")
    (two_splits / "images.csv").write_text(rows)
    (two_splits / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(two_splits, "--split", "all") == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "bad rows: 2" in shown and "label is 'bad'" in shown and "row 4: its picture" in shown


def test_what_cannot_be_read_at_all_is_bad_input(tmp_path, capsys):
    assert main.main(["data", "check", "--format", "unsafebench", str(tmp_path / "no")]) == 2
    assert "hf download yiting/UnsafeBench" in capsys.readouterr().err


def test_the_card_says_what_was_found(two_splits, tmp_path, capsys):
    file = tmp_path / "card.md"
    (two_splits / "house.yaml").write_text(
        (two_splits / "house.yaml").read_text().replace("id: house", "id: house-7"))
    assert run(two_splits, "--split", "test", "--against-split", "train", "--card", file) == 1
    card = file.read_text()
    reader = open_dataset("own", two_splits, "test", policy=load_policy(two_splits / "house.yaml"))
    assert "| Rows | 3 |" in card and f"`{reader.digest_with_pictures}`" in card
    assert "| house-7 | 2 | 1 |" in card
    # Always unsafe: one hit of one, two alarms in vain.
    assert "2 safe and 1 unsafe rows" in card
    assert "always says unsafe 33.3 per cent and 50.0" in card
    assert "| Pictures in the other set that was given, too | 2 |" in card
    (two_splits / "8.png").write_bytes(files.png(123))
    again = open_dataset("own", two_splits, "test", policy=load_policy(two_splits / "house.yaml"))
    assert again.digest == reader.digest
    assert again.digest_with_pictures != reader.digest_with_pictures


def test_words_of_a_data_set_are_only_words_on_its_card(tmp_path, capsys):
    files.unsafe_bench(tmp_path)
    rows = pq.read_table(tmp_path / "data/test-00000-of-00001.parquet").to_pylist()
    rows[0]["category"] = "<b>|Hate\n# Big"
    files.write_parquet(tmp_path / "data/test-00000-of-00001.parquet", rows)
    file = tmp_path / "card.md"
    assert main.main(["data", "check", "--format", "unsafebench", str(tmp_path), "--card",
                      str(file)]) == 0
    card = file.read_text()
    assert "\\<b\\>\\|Hate \\# Big" in card and "\n# Big" not in card
    assert "its terms must be accepted there" in card and "The policy text is ours" in card
