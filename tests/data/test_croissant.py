"""Croissant metadata: read and validated by MLCommons' own library."""

import hashlib
import json

import mlcroissant
import numpy as np
import pytest

from guardjax.cli.main import main
from guardjax.data import croissant
from guardjax.world import builder

# What is recommended and nobody has: a citation of data that was made a minute ago.
NO_CITATION = "citeAs"


def validated(folder):
    """The data set as the library sees it, after its checks, of which none failed."""
    dataset = mlcroissant.Dataset(jsonld=folder / croissant.FILE)
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert all(NO_CITATION in str(warning) for warning in issues.warnings), issues.warnings
    return dataset


@pytest.fixture(scope="module", name="pairs")
def _pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "pairs"
    policy = folder.parent / "house.yaml"
    policy.write_text("schema: 1\nid: house\nversion: '1'\ntitle: House\nrules:\n"
                      "  - {id: R1, when: {any: [weapons, alcohol, gambling, fire]}}\n")
    assert main(["pairs", "build", "--world", "20", "--policy", str(policy), "--out",
                 str(folder)]) == 0
    return folder


@pytest.fixture(scope="module", name="world")
def _world(tmp_path_factory):
    return builder.build(tmp_path_factory.mktemp("worlds"), {"train": 2, "test": 1},
                         progress=False)


def test_pairs_are_read_back_with_their_pictures(pairs, capsys):
    assert main(["data", "croissant", str(pairs), "--url", "https://example.org/pairs", "--license",
                 "https://creativecommons.org/licenses/by/4.0/", "--creator", "Me"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(pairs / croissant.FILE) and not shown.err
    dataset = validated(pairs)
    table = [json.loads(line) for line in (pairs / "metadata.jsonl").read_text().splitlines()]
    records = {record["rows/file_name"]: record for record in dataset.records("rows")}
    assert len(records) == len(table) >= 2
    for row in table:
        found = records[row["file_name"].removeprefix("images/").encode()]
        assert found["rows/safety_label"].decode() == row["safety_label"]
        assert found["rows/policy"].decode() == row["policy"]
        assert np.asarray(found["rows/image"]).shape[-1] == 3
    written = json.loads((pairs / croissant.FILE).read_text())
    files = {each["@id"]: each for each in written["distribution"] if "sha256" in each}
    assert files["metadata.jsonl"]["sha256"] == hashlib.sha256(
        (pairs / "metadata.jsonl").read_bytes()).hexdigest()
    assert written["creator"]["name"] == "Me" and not croissant.missing(written)


def test_a_world_has_its_files_and_splits(world, capsys):
    # The folder that holds the build will do.
    assert main(["data", "croissant", str(world.parent)]) == 0
    assert "url is not known; before you publish, give it with --url" in capsys.readouterr().err
    assert main(["data", "croissant", str(world), "--url", "https://example.org/world"]) == 0
    dataset = validated(world)
    found = {record["splits/name"]: record["splits/pictures"]
             for record in dataset.records("splits")}
    assert {(name.decode() if isinstance(name, bytes) else name): int(number)
            for name, number in found.items()} == {"train": 4, "test": 2}
    written = json.loads((world / croissant.FILE).read_text())
    for each in written["distribution"]:
        data = (world / each["contentUrl"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == each["sha256"]
        assert each["contentSize"] == f"{len(data)} B"
    assert any("array_record" in each["@id"] for each in written["distribution"])
    assert "by-sa" in written["license"]
    builder.check_complete(world)       # the build is whole as before


@pytest.mark.parametrize("words, message", [
    (("{empty}",), "complete.json is missing"),
    (("{empty}", "--format", "pairs"), "is not a folder of guardjax pairs build"),
    (("{world}", "--license", "mine"), "of the policy world are known: leave --license"),
])
def test_other_folders_are_refused(world, tmp_path, capsys, words, message):
    words = [word.format(empty=tmp_path, world=world) for word in words]
    assert main(["data", "croissant", *words]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
