"""Assess, edit, verify: with the world's exact tools, and with servers that misbehave."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

from guardjax.cli.main import main
from guardjax.data.datasets.registry import open_dataset
from guardjax.pairs import http_tools
from guardjax.pairs.build import LeftOut, Pair, PairSettings, Source, make_pairs
from guardjax.pairs.checks import check_pair
from guardjax.pairs.folder import save_pairs
from guardjax.pairs.http_tools import Endpoint, HttpAssessor, HttpEditor
from guardjax.pairs.kept import KeptAssessor, KeptEditor, picture_hash
from guardjax.pairs.recaption import Caption, recaption
from guardjax.pairs.tools import Assessment, ToolError, ToolUnavailable, read_assessment
from guardjax.pairs.world_tools import WorldStudio
from guardjax.policies import load_ladder
from guardjax.world import catalogue
from guardjax.world.edits import edit_mask
from guardjax.world.scene import render, sample_scene
from tests.pairs.fake_server import FakeServer, decoded, serving

POLICY = load_ladder()["L3"]
STRICT = load_ladder()["L5"]


def scenes(number=24):
    return [sample_scene(seed) for seed in range(number)]


def world_sources(found):
    return [Source(f"s{scene.seed}", lambda scene=scene: render(scene)) for scene in found]


def world_pairs(policy=POLICY, **more):
    found = scenes()
    studio = WorldStudio(found)
    return studio, found, list(make_pairs(world_sources(found), policy, studio, studio, **more))


# ---- the world's exact tools


@pytest.mark.parametrize("policy", [POLICY, STRICT])
def test_forbidden_scenes_find_an_allowed_twin(policy):
    studio, found, made = world_pairs(policy)
    forbidden = [scene for scene in found
                 if policy.judge(scene.attributes()).verdict == "unsafe"]
    pairs = [one for one in made if isinstance(one, Pair)]
    assert [one.name for one in made] == [f"s{scene.seed}" for scene in found], "in order"
    assert len(pairs) >= 0.7 * len(forbidden) > 3
    for pair in pairs:
        assert pair.before.shape == pair.after.shape
        mask = edit_mask(studio._scene(pair.before), studio._scene(pair.after))
        assert (pair.before[~mask] == pair.after[~mask]).all(), "byte for byte elsewhere"
        assert 0 < pair.check.changed <= 0.5 and pair.check.rest < 6
        assert pair.instruction.startswith("replace the ")
    allowed = {f"s{scene.seed}" for scene in found if scene not in forbidden}
    reasons = {one.name: one.reason for one in made if isinstance(one, LeftOut)}
    assert allowed <= set(reasons)
    assert all("as it is" in reasons[name] for name in allowed)


def test_labels_under_further_policies_are_the_policies_own():
    _, found, made = world_pairs(label_under=[STRICT])
    by_name = {f"s{scene.seed}": scene for scene in found}
    pairs = [one for one in made if isinstance(one, Pair)]
    for pair in pairs:
        before, _ = pair.labels[STRICT.id]
        assert before == STRICT.judge(by_name[pair.name].attributes()).verdict


def test_a_draft_keeps_silent_and_a_recaption_does_not():
    found = scenes(12)
    rows = list(recaption(world_sources(found), WorldStudio(found)))
    assert all(isinstance(row, Caption) for row in rows)
    for row, scene in zip(rows, found, strict=True):
        harmful = [name for name in scene.names if catalogue.is_harmful(name)]
        assert not any(name in row.draft for name in harmful)
        assert all(name in row.target for name in scene.names)


def test_the_studio_knows_its_own_pictures_only():
    studio = WorldStudio(scenes(2))
    stranger = np.zeros((64, 64, 3), np.uint8)
    for ask in (lambda: studio.assess(stranger, POLICY), lambda: studio.caption(stranger),
                lambda: studio.edit(stranger, "replace the knife by a spoon")):
        with pytest.raises(ToolError, match="none of the policy world's.*--assessor-url"):
            ask()
    with pytest.raises(ToolError, match="'make it nice' is no edit of a scene with"):
        studio.edit(studio.pictures[0], "make it nice")


# ---- checks


def picture(seed=0, size=(48, 40)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_one_local_change_is_a_pair():
    before = picture()
    after = before.copy()
    after[8:16, 8:24] = 255 - after[8:16, 8:24]
    check = check_pair(before, after)
    assert check.problem == "" and check.rest == 0
    assert check.changed == pytest.approx(2 / 30)      # two blocks of 6 x 5


@pytest.mark.parametrize("change, problem", [
    (lambda x: x[:-1], "the sizes differ: 40x48 became 40x47"),
    (lambda x: x, "nothing was changed"),
    (lambda x: 255 - x, "% of the picture changed, at most 50 % may"),
    (lambda x: np.clip(np.where(np.arange(40)[:, None] < 8, 255 - x, x.astype(int) + 8), 0, 255
                       ).astype(np.uint8), "the rest differs by"),
])
def test_what_is_no_pair(change, problem):
    assert problem in check_pair(picture(), change(picture())).problem


@pytest.mark.parametrize("text, instruction", [
    ("safe", ""), (' "Safe." ', ""), ("**SAFE**", ""), ("replace\nthe gun", "replace the gun"),
    ("safe for work, but replace the gun", "safe for work, but replace the gun"),
])
def test_an_assessment_is_read(text, instruction):
    assert read_assessment(text) == Assessment(instruction)


@pytest.mark.parametrize("text", ["", "  ", "x" * 501])
def test_an_assessment_that_is_none(text):
    with pytest.raises(ToolError, match="neither 'safe' nor an instruction of at most 500"):
        read_assessment(text)


# ---- tools that misbehave


class Scripted:
    """An assessor and editor that say what they are told to."""

    identity = "scripted"

    def __init__(self, assess, edit=None):
        self._assess, self._edit = assess, edit
        self.calls = 0

    def assess(self, picture, policy, attempt=0):
        self.calls += 1
        return self._assess(picture, attempt)

    def edit(self, picture, instruction, attempt=0):
        self.calls += 1
        return self._edit(picture, attempt)

    def caption(self, picture):
        return "a draft"

    def restore(self, picture, draft):
        return ""


def dotted(picture):
    after = picture.copy()
    after[:8, :8] = 255
    return after


def is_dotted(picture):
    return bool((picture[:8, :8] == 255).all())


def test_an_edit_is_tried_again_until_it_is_a_pair():
    tool = Scripted(lambda x, attempt: Assessment("" if is_dotted(x) else f"try {attempt}"),
                    lambda x, attempt: (x, 255 - x, dotted(x))[attempt])
    pair, = make_pairs([Source("one", picture)], POLICY, tool, tool)
    assert pair.attempts == 3 and pair.instruction == "try 2"
    left, = make_pairs([Source("one", picture)], POLICY, tool, tool, PairSettings(attempts=2))
    assert left.reason.startswith("2 edits failed: nothing was changed; ")
    assert "% of the picture changed" in left.reason


def test_an_edit_that_leaves_something_forbidden_is_no_pair():
    tool = Scripted(lambda x, attempt: Assessment("replace the gun"), lambda x, _: dotted(x))
    left, = make_pairs([Source("one", picture)], POLICY, tool, tool)
    assert left.reason == "3 edits failed: still forbidden: replace the gun"


def test_a_picture_that_cannot_be_read_is_left_out_and_the_rest_goes_on():
    def broken():
        raise ValueError("E_TRUNCATED: the file ends early")

    tool = Scripted(lambda x, _: Assessment(""))
    made = list(make_pairs([Source("a", broken), Source("b", picture)], POLICY, tool, tool))
    assert [one.reason for one in made] == ["E_TRUNCATED: the file ends early",
                                            "allowed under ladder-L3 as it is"]
    assert [row.reason for row in recaption([Source("a", broken), Source("b", picture)], tool)] \
        == ["E_TRUNCATED: the file ends early",
            "the caption has 0 characters, it may have 1 to 2000"]


def test_a_tool_that_answers_nobody_ends_the_run():
    def gone(*_):
        raise ToolUnavailable("nobody answers")

    tool = Scripted(gone)
    with pytest.raises(ToolUnavailable):
        list(make_pairs([Source(str(i), picture) for i in range(40)], POLICY, tool, tool))
    assert tool.calls < 40


def test_nothing_is_asked_twice(tmp_path):
    tool = Scripted(lambda x, _: Assessment("" if is_dotted(x) else "replace it"),
                    lambda x, _: dotted(x))
    sources = [Source(str(i), lambda i=i: picture(i)) for i in range(3)]

    def run():
        return list(make_pairs(sources, POLICY, KeptAssessor(tool, tmp_path),
                               KeptEditor(tool, tmp_path)))

    first, calls = run(), tool.calls
    again = run()
    assert calls == 9 and tool.calls == calls
    for one, other in zip(first, again, strict=True):
        assert (one.after == other.after).all() and one.instruction == other.instruction
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {row["tool"] for row in kept} == {"scripted"} and len(kept) == 6
    assert picture_hash(picture(0)) in {row["picture"] for row in kept}
    other = Scripted(tool._assess, tool._edit)
    other.identity = "another model"
    KeptAssessor(other, tmp_path).assess(picture(0), POLICY)
    assert other.calls == 1, "another model's answers are its own"


def test_a_set_is_written_whole_or_not_at_all(tmp_path):
    tool = Scripted(lambda x, _: Assessment(""))
    with pytest.raises(ToolError, match="none of 1 pictures found a twin, the first: a: allowed"):
        save_pairs(tmp_path / "out", make_pairs([Source("a", picture)], POLICY, tool, tool),
                   POLICY, [], PairSettings(), {})
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with pytest.raises(ToolError, match="is there already"):
        save_pairs(tmp_path / "out", [], POLICY, [], PairSettings(), {})


# ---- over HTTP


@pytest.fixture(name="fake")
def _fake():
    fake = FakeServer(lambda x, words, seed: "safe" if is_dotted(x) else "Replace the gun.",
                      lambda x, words: dotted(x))
    with serving(fake) as fake.url:
        yield fake


def endpoint(fake, **more):
    return Endpoint(fake.url, "tiny", **{"seconds": 5.0, "retries": 0} | more)


def test_pairs_over_http(fake, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    to = endpoint(fake, key_variable="MY_KEY")
    pair, = make_pairs([Source("a", picture)], POLICY, HttpAssessor(to), HttpEditor(to))
    assert (pair.after == dotted(picture())).all() and (pair.before == picture()).all()
    assert fake.requests == ["/v1/chat/completions", "/v1/images/edits", "/v1/chat/completions"]
    assert set(fake.keys) == {"Bearer secret"}
    assert "secret" not in HttpAssessor(to).identity


def test_prompts_carry_policy_draft_and_instruction(fake):
    words = []

    def say(_, text, seed):
        words.append((text, seed))
        return "a gun"

    fake.say = say
    fake.paint = lambda x, text: (words.append((text, None)), x)[1]
    assessor = HttpAssessor(endpoint(fake))
    assessor.assess(picture(), POLICY, 2)
    assert assessor.restore(picture(), assessor.caption(picture())) == "a gun"
    HttpEditor(endpoint(fake)).edit(picture(), "replace the gun.")
    assert POLICY.render() in words[0][0] and words[0][1] == 2
    assert "\na gun\n" in words[2][0] and words[3][0].startswith("replace the gun. Change nothing")


@pytest.mark.parametrize("answer, error, message", [
    (401, ToolUnavailable, "tiny at .* refuses: .*check the model's name and the key in OPENAI"),
    (404, ToolUnavailable, "refuses"),
    (400, ToolError, "tiny at "),
    (500, ToolError, "tiny at "),
    ("", ToolError, "answered with nothing"),
    (None, ToolError, "answered with nothing"),
    (b"<html>", ToolError, "does not answer as the protocol says"),
    (b'{"choices": []}', ToolError, "does not answer as the protocol says"),
    (b'{"choices": [{"message": null}]}', ToolError, "does not answer as the protocol says"),
])
def test_a_chat_server_that_fails(fake, answer, error, message):
    fake.say = lambda *_: answer
    with pytest.raises(error, match=message):
        HttpAssessor(endpoint(fake)).assess(picture(), POLICY)


@pytest.mark.parametrize("answer, message", [
    (b'{"created": 0, "data": []}', "does not answer as the protocol says"),
    (b'{"created": 0, "data": [{"url": "http://x/y.png"}]}', "without a picture"),
    (b'{"created": 0, "data": [{"b64_json": "eA=="}]}', "answered with no picture: E_FORMAT"),
    (b'{"created": 0, "data": [{"b64_json": "?"}]}', "answered with no picture"),
])
def test_an_editor_that_gives_no_picture(fake, answer, message):
    fake.paint = lambda *_: answer
    with pytest.raises(ToolError, match=message):
        HttpEditor(endpoint(fake)).edit(picture(), "replace it")


def test_a_failure_is_tried_again(fake, monkeypatch):
    answers = [500, "safe"]
    fake.say = lambda *_: answers.pop(0)
    assert HttpAssessor(endpoint(fake, retries=1)).assess(picture(), POLICY).safe
    assert len(fake.requests) == 2


def test_a_silent_server_and_none_at_all(fake):
    wait = threading.Event()
    fake.say = lambda *_: (wait.wait(10), "safe")[1]
    with pytest.raises(ToolError, match="no answer within 0.2 s"):
        HttpAssessor(endpoint(fake, seconds=0.2)).assess(picture(), POLICY)
    wait.set()
    nobody = Endpoint("http://127.0.0.1:9/v1", "tiny", retries=0)
    with pytest.raises(ToolUnavailable, match="nobody answers at http://127.0.0.1:9/v1"):
        HttpAssessor(nobody).assess(picture(), POLICY)


def test_the_client_library_may_be_missing(fake, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(ToolUnavailable, match=r"pip install 'guardjax\[pairs\]'"):
        http_tools.HttpAssessor(endpoint(fake)).caption(picture())


# ---- the verb


@pytest.fixture(name="policy_file")
def _policy_file(tmp_path):
    path = tmp_path / "house.yaml"
    path.write_text(
        "schema: 1\nid: house\nversion: '1'\ntitle: House\n"
        "rules:\n- {id: R1, severity: high, when: weapons, wordings: [no weapons]}\n")
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_verb_on_the_world(tmp_path, policy_file, capsys):
    out = tmp_path / "out"
    assert main(["pairs", "build", "--world", "40", "--policy", str(policy_file), "--out",
                 str(out)]) == 0
    rows = rows_of(out / "metadata.jsonl")
    assert len(rows) >= 4 and f"{len(rows) // 2} pairs" in capsys.readouterr().out
    assert {(row["role"], row["safety_label"]) for row in rows} == {
        ("before", "unsafe"), ("after", "safe")}
    with Image.open(out / rows[0]["file_name"]) as image:
        assert image.size == (64, 64) and not image.info.get("exif")
    assert len(rows_of(out / "left_out.jsonl")) + len(rows) // 2 == 40
    assert json.loads((out / "tools.json").read_text())["assessor"] == "policy world"
    reader = open_dataset("safeeditbench", out, "all")
    assert [(record.label, record.pair_id) for record in reader] == [
        (row["safety_label"], row["pair_id"]) for row in rows]
    assert main(["pairs", "build", "--world", "4", "--policy", str(policy_file), "--out",
                 str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_the_verb_on_pictures_of_ones_own(tmp_path, policy_file, fake, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.fromarray(picture(i)).save(photos / f"p{i}.png")
    (photos / "p0.txt").write_text("no picture")
    server = ["--assessor-url", fake.url, "--assessor-model", "a", "--kept", str(tmp_path / "kept")]
    editor = ["--editor-url", fake.url, "--editor-model", "e"]
    words = ["pairs", "build", "--pictures", str(photos), "--policy", str(policy_file), "--out",
             str(tmp_path / "out"), *server]
    assert main(words) == 2
    assert "need an editor: give --editor-url" in capsys.readouterr().err
    assert main([*words, *editor]) == 0
    assert {row["pair_id"] for row in rows_of(tmp_path / "out" / "metadata.jsonl")} == {
        "p0_png", "p1", "p2"}
    left, = rows_of(tmp_path / "out" / "left_out.jsonl")
    assert left["name"] == "p0_txt" and "E_FORMAT" in left["reason"]
    fake.say = lambda _, text, seed: "a gun" if "Here is" in text else "a toy"
    captions = tmp_path / "captions"
    assert main(["pairs", "recaption", "--pictures", str(photos), "--out", str(captions),
                 *server]) == 0
    assert "3 captions, 1 pictures left out" in capsys.readouterr().out
    rows = rows_of(captions / "metadata.jsonl")
    assert rows[0] == {"file_name": "images/p0_png.png", "draft": "a toy", "caption": "a gun"}
    for i, row in enumerate(rows):
        assert (decoded((captions / row["file_name"]).read_bytes()) == picture(i)).all()
    assert rows_of(captions / "left_out.jsonl")[0]["name"] == "p0_txt"
    assert fake.url in json.loads((captions / "assessor.json").read_text())["assessor"]
    assert main(["pairs", "recaption", "--pictures", str(photos), "--out", str(captions),
                 *server]) == 2
    assert "is there already" in capsys.readouterr().err
    (photos / "nothing").mkdir()
    (photos / "p0.txt").rename(photos / "nothing/p0.txt")
    assert main(["pairs", "recaption", "--pictures", str(photos / "nothing"), "--out",
                 str(tmp_path / "none"), *server]) == 2
    assert "none of 1 pictures has a caption, the first: p0: E_FORMAT" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_server_that_stops_loses_nothing(tmp_path, policy_file, fake, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.fromarray(picture(i)).save(photos / f"p{i}.png")
    words = ["pairs", "build", "--pictures", str(photos), "--policy", str(policy_file), "--out",
             str(tmp_path / "out"), "--assessor-url", fake.url, "--assessor-model", "a",
             "--editor-url", fake.url, "--editor-model", "e", "--kept", str(tmp_path / "kept"),
             "--workers", "1"]
    say = fake.say
    fake.say = lambda *args: say(*args) if len(fake.requests) < 6 else 401
    assert main(words) == 1
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    asked, fake.say = len(fake.requests), say
    assert main(words) == 0
    assert len(fake.requests) - asked == 12 - 5, "five answers were kept"


@pytest.mark.parametrize("words, message", [
    (["--pictures", "/nowhere"], "there is no such folder"),
    (["--world", "3", "--policy", "/no.yaml"], "/no.yaml"),
])
def test_what_is_not_there(tmp_path, policy_file, words, message, capsys):
    server = [word for name in ("assessor", "editor")
              for word in (f"--{name}-url", "http://127.0.0.1:9/v1", f"--{name}-model", "m")]
    policy = [] if "--policy" in words else ["--policy", str(policy_file)]
    assert main(["pairs", "build", "--out", str(tmp_path / "out"), *server, *policy, *words]) == 2
    assert message in capsys.readouterr().err
