"""`guardjax judge` under several policies: what a person sees, and what is refused."""

import json

import pytest
from PIL import Image

from guardjax.eval.guard import Guard

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30)}


def policy(name, number="1"):
    return (f"schema: 1\nid: no-{name}\nversion: '{number}'\ntitle: No {name}\nrules:\n"
            f"  - {{id: R1, wordings: [no {name} picture]}}\n")


@pytest.fixture(name="place")
def _place(tmp_path, monkeypatch):
    """Two pictures, a file that is none, two policies; a model that sees colours."""
    def answer(self, images, texts):
        banned = [next(place for place, name in enumerate(COLOURS) if name in text)
                  for text in texts]
        return [(f"<answer>{'unsafe: R1' if image[..., place].mean() > 128 else 'safe'}</answer>",
                 False) for image, place in zip(images, banned, strict=True)]

    monkeypatch.setattr(Guard, "answer", answer)
    monkeypatch.chdir(tmp_path)
    for name, colour in COLOURS.items():
        Image.new("RGB", (64, 64), colour).save(f"{name}.png")
        (tmp_path / f"{name}.yaml").write_text(policy(name))
    Image.new("RGB", (64, 64), (30, 30, 220)).save("blue.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "red.png").read_bytes()[:40])
    return tmp_path


@pytest.fixture(name="judge")
def _judge(said, tiny_model, place):
    """`judge(*pictures, policies=..., ...)` runs the verb; (status, output, errors)."""
    def run(*pictures, policies=("red.yaml", "green.yaml"), out="out.jsonl"):
        given = [word for file in policies for word in ("--policy", file)]
        return said("judge", *pictures, *given, "--model", tiny_model, "--out", out)

    return run


def lines_of(text, *starts):
    return [[word for word in line.split("  ") if word] for start in starts
            for line in text.splitlines() if line.strip().startswith(start)]


def test_policies_stand_side_by_side(judge, place):
    status, out, _ = judge("red.png", "green.png", "blue.png", "torn.png")
    assert status == 1
    header, *rows = [[cell.strip() for cell in row] for row in lines_of(
        out, "Picture", "red.png", "green.png", "blue.png", "torn.png")]
    assert header == ["Picture", "no-red", "no-green"]
    torn = "needs review (error:E_TRUNCATED)"
    assert rows == [["red.png", "unsafe R1", "safe", "differ"],
                    ["green.png", "safe", "unsafe R1", "differ"],
                    ["blue.png", "safe", "safe"], ["torn.png", torn, torn]]
    assert "4 pictures under 2 policies; they call 2 of them both safe and unsafe" in out
    for name in COLOURS:
        assert f"  no-{name}: 2 safe, 1 unsafe, 1 to review" in out
    records = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert [(r["picture"], r["policy_id"], r["decision"]) for r in records[:3]] == [
        ("red.png", "no-red", "unsafe"), ("red.png", "no-green", "safe"),
        ("green.png", "no-red", "safe")]
    assert len(records) == 8 and len({r["policy_hash"] for r in records}) == 2


def test_where_columns_do_not_fit_policies_are_grouped(judge, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    status, out, _ = judge("red.png", "blue.png")
    assert status == 0
    assert [[cell.strip() for cell in row] for row in lines_of(out, "Picture", "red.png", "blue")
            ] == [["Picture", "Safe", "Unsafe", "Needs review"],
                  ["red.png", "no-green", "no-red", "differ"], ["blue.png", "no-red, no-green"]]


def test_versions_of_one_policy_are_told_apart(judge, place):
    (place / "newer.yaml").write_text(policy("red", "2"))
    status, out, _ = judge("red.png", policies=("red.yaml", "newer.yaml"))
    assert status == 0
    assert "no-red 1: 0 safe, 1 unsafe, 0 to review" in out
    assert "no-red 2: 0 safe, 1 unsafe, 0 to review" in out


def test_one_policy_looks_as_ever(judge):
    status, out, _ = judge("red.png", "blue.png", policies=["red.yaml"])
    assert status == 0
    assert lines_of(out, "Picture")[0][:2] == ["Picture", " Decision"] and "differ" not in out
    assert out.endswith("2 pictures: 1 safe, 1 unsafe, 0 to review\nverdicts in out.jsonl\n")


def test_a_policy_given_twice_is_refused_by_its_files(judge, place):
    (place / "copy.yaml").write_text("# the same, with a remark\n" + policy("red"))
    for files in (("red.yaml", "red.yaml"), ("red.yaml", "green.yaml", "copy.yaml")):
        status, out, err = judge("red.png", policies=files)
        assert status == 2 and not out and not (place / "out.jsonl").exists()
        assert f"red.yaml and {files[-1]} are the same policy (no-red, version 1, hash" in err
        assert "give each policy once" in err


def test_other_policies_than_the_file_has_are_refused(judge, place):
    assert judge("red.png")[0] == 0
    before = (place / "out.jsonl").read_bytes()
    status, _, err = judge("red.png", policies=["red.yaml"])
    assert status == 2 and "policies no-red, no-green there, no-red now" in err
    status, _, err = judge("red.png", policies=["red.yaml", "nowhere.yaml"])
    assert status == 2 and "nowhere.yaml" in err
    assert (place / "out.jsonl").read_bytes() == before
