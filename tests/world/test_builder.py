import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from guardjax.world import builder
from guardjax.world.edits import sample_pair
from guardjax.world.record import pair_records
from guardjax.world.scene import SceneSpec
from guardjax.world.tfds_dataset import SEED_STRIDE

from .conftest import SIZES


def test_records_come_back_as_they_were_made(tiny_world):
    source = builder.load(tiny_world, "test")
    assert len(source) == 2 * SIZES["test"]
    for number in range(SIZES["test"]):
        pair = sample_pair(3 * SEED_STRIDE + number, SceneSpec("test"))
        for member, made in enumerate(pair_records(pair, f"test-{number:05d}")):
            read = source[2 * number + member]
            assert np.array_equal(read.image, made.image) and read.image.dtype == np.uint8
            assert np.array_equal(read.mask, made.mask) and read.mask.dtype == bool
            for field in ("attributes", "scene_id", "pair_id", "role", "edit_kind", "caption",
                          "questions", "split", "objects", "place", "light", "photograph",
                          "artist"):
                assert getattr(read, field) == getattr(made, field), field


def test_splits_share_no_picture(tiny_world):
    seen = {}
    for split in builder.splits(tiny_world):
        for record in builder.load(tiny_world, split):
            assert record.split == split
            assert seen.setdefault(record.image.tobytes(), split) == split


def test_finished_build_is_reused_and_other_recipes_are_not(tiny_world, monkeypatch):
    monkeypatch.setattr(builder, "_write", lambda *_: pytest.fail("built again"))
    assert builder.build(tiny_world.parent, SIZES, seed=3, progress=False) == tiny_world
    with pytest.raises(pytest.fail.Exception, match="built again"):
        builder.build(tiny_world.parent, SIZES, seed=4, progress=False)
    with pytest.raises(pytest.fail.Exception, match="built again"):
        builder.build(tiny_world.parent, {**SIZES, "dev": 5}, seed=3, progress=False)


def test_interrupted_build_leaves_nothing_to_be_used(tmp_path, monkeypatch):
    def interrupted(folder, *_):
        (folder / "half.array_record").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(builder, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        builder.build(tmp_path, {"dev": 2}, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_truncated_or_unstamped_build_is_refused_and_made_again(tmp_path):
    made = builder.build(tmp_path, {"dev": 2}, progress=False)
    before = builder.load(made, "dev")[0].image
    records = next(made.rglob("*array_record*"))
    records.write_bytes(records.read_bytes()[:-10])
    with pytest.raises(builder.IncompleteBuild, match="instead of .*run the build again"):
        builder.load(made, "dev")
    assert builder.build(tmp_path, {"dev": 2}, progress=False) == made
    (made / "complete.json").unlink()
    with pytest.raises(builder.IncompleteBuild, match="missing or unreadable"):
        builder.load(made, "dev")
    assert builder.build(tmp_path, {"dev": 2}, progress=False) == made
    assert np.array_equal(builder.load(made, "dev")[0].image, before)
    assert [path.name for path in tmp_path.iterdir()] == [made.name]


def test_bad_requests(tiny_world, tmp_path):
    with pytest.raises(ValueError, match="'validation' does not exist"):
        builder.build(tmp_path, {"validation": 3})
    with pytest.raises(ValueError, match="size -1"):
        builder.build(tmp_path, {"dev": -1})
    with pytest.raises(ValueError, match="nothing to build"):
        builder.build(tmp_path, {"dev": 0})
    with pytest.raises(ValueError, match="no split 'test_artist' .*not asked for"):
        builder.load(tiny_world, "test_artist")
    with pytest.raises(IndexError, match="record 99 of split dev"):
        builder.load(tiny_world, "dev")[99]
    with pytest.raises(builder.IncompleteBuild):
        builder.load(tmp_path / "nowhere", "dev")


def test_second_artist_is_left_out_with_a_reason(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(builder, "noto_available", lambda: False)
    made = builder.build(tmp_path, {"dev": 1, "test_artist": 1}, progress=False)
    assert builder.splits(made) == {"dev": 1}
    assert "test_artist is left out" in caplog.text
    with pytest.raises(ValueError, match="font is not installed"):
        builder.load(made, "test_artist")
    assert "`test_artist` was left out" in (made / "CARD.md").read_text()


def test_second_artist_is_built_where_the_font_is(tmp_path, second_artist):
    made = builder.build(tmp_path, {"test_artist": 2}, progress=False)
    assert {record.artist for record in builder.load(made, "test_artist")} == {"noto"}


def test_works_as_a_grain_source(tiny_world):
    import grain

    source = builder.load(tiny_world, "train")
    dataset = grain.MapDataset.source(source).seed(0).shuffle().map(lambda r: r.scene_id)
    assert sorted(dataset) == sorted(record.scene_id for record in source)
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(again[3].image, source[3].image)


def test_no_tensorflow_and_no_device(tiny_world):
    code = (
        "import sys\n"
        "from guardjax.world import builder\n"
        f"record = builder.load({str(tiny_world)!r}, 'dev')[0]\n"
        f"builder.build({str(tiny_world.parent)!r}, {SIZES!r}, seed=3, progress=False)\n"
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_nothing_is_imported_lazily_while_the_bar_is_drawn(tmp_path):
    """Lazy importing replaces `import` for all threads; the bar's, in the midst of one, died."""
    code = (
        "from etils.epy import lazy_imports_utils\n"
        "from guardjax.world import builder\n"
        "bar = builder._progress\n"
        "def watched(*args):\n"
        "    lazy_imports_utils._lazy_import = None    # whoever calls it fails\n"
        "    return bar(*args)\n"
        "builder._progress = watched\n"
        f"builder.build({str(tmp_path)!r}, {{'dev': 1}})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "1/1 pairs" in done.stderr and "Exception" not in done.stderr


def test_stamp_lists_every_file_of_the_dataset(tiny_world):
    stamp = json.loads((tiny_world / "complete.json").read_text())
    assert any("array_record" in name for name in stamp["files"])
    assert stamp["recipe"]["sizes"] == SIZES
