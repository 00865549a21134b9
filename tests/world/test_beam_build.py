"""A world built by Apache Beam is the world that is built without it, file for file."""

import pathlib
import sys

import pytest

from guardjax.cli import main
from guardjax.world import builder
from guardjax.world.beam_build import BeamBuild

SIZES = {"train": 3, "dev": 2}


def files(directory):
    """Content by name."""
    return {str(file.relative_to(directory)): file.read_bytes()
            for file in directory.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--direct_num_workers=2",)])
def test_beam_builds_the_same_world_byte_for_byte(words, tmp_path):
    pytest.importorskip("apache_beam", reason="building with Beam needs the extra `beam`, which "
                        "holds back Pillow and protobuf: an environment of its own")
    alone = builder.build(tmp_path / "alone", SIZES, 3, progress=False)
    stage = tmp_path / "stage"
    built = builder.build(tmp_path / "beam", SIZES, 3, progress=False,
                          beam=BeamBuild(words, str(stage)))
    assert built.name == alone.name, "what is built has one name, however it is built"
    assert files(built) == files(alone)
    assert not list(stage.iterdir()), "the stage is left as it was found"
    with pytest.raises(ValueError, match="Beam knows no option runnr"):
        BeamBuild(("--runnr=DirectRunner",)).download_config()
    again = builder.build(tmp_path / "beam", SIZES, 3, beam=BeamBuild(("--runner=Nobody",), "s"))
    assert again == built, "it is there: nothing runs"


def test_pairs_of_workers_are_those_of_one_process(tmp_path):
    from guardjax.world.scene import SceneSpec
    from guardjax.world.tfds_dataset import PolicyWorld, pair_examples

    spec = SceneSpec(split="train")
    one = PolicyWorld(sizes={"train": 3}, seed=5, spec=spec, data_dir=tmp_path)
    expected = list(one._generate_examples("train"))
    # Workers take numbers in any order.
    found = [example for number in (2, 0, 1)
             for example in pair_examples(number, seed=5, spec=spec)]
    content = lambda key, example: (key, {
        name: value.getvalue() if hasattr(value, "getvalue") else value
        for name, value in example.items()})
    assert sorted((content(*each) for each in found), key=lambda each: each[0]) == [
        content(*each) for each in expected]


def test_what_workers_wrote_comes_from_the_stage(tmp_path):
    def write(place):
        (pathlib.Path(place) / "policy_world" / "1.0.0").mkdir(parents=True)
        (pathlib.Path(place) / "policy_world" / "1.0.0" / "a").write_bytes(b"one")

    folder = tmp_path / "workshop"
    BeamBuild(stage=str(tmp_path / "stage")).write_to(folder, write)
    assert files(folder) == {"policy_world/1.0.0/a": b"one"}
    assert not list((tmp_path / "stage").iterdir())


def test_workers_elsewhere_need_a_stage():
    with pytest.raises(ValueError, match="workers of DataflowRunner do not see .*--stage"):
        BeamBuild(("--runner=DataflowRunner",))
    BeamBuild(("--runner=DataflowRunner",), "gs://bucket/stage")


def test_without_beam_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("apache_beam")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    words = ["data", "build", "--data-dir", str(tmp_path), "--size", "train=1", "--beam"]
    assert main.main(words) == 2
    assert "pip install 'guardjax[world,beam]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing half-built is left"


def test_a_stage_without_beam_is_refused(tmp_path, capsys):
    assert main.main(["data", "build", "--data-dir", str(tmp_path), "--stage", "s"]) == 2
    assert "--stage is a folder for the workers of Beam: add --beam" in capsys.readouterr().err
