"""The judge: fail-closed, one line a picture, resumable. The model is a function of the pixels."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from guardjax.data.prompts import PromptError
from guardjax.eval.combine import combine
from guardjax.eval.journal import OutputMismatch
from guardjax.eval.judge import judge_pictures
from guardjax.eval.picture_paths import find_pictures
from guardjax.eval.verdict_record import Pins, VerdictRecord, load_records
from guardjax.policies import Outcome, Policy, Problem, Rule, Verdict

POLICY = Policy("no-red", "1", "No red", (Rule("R1", wordings=("no red",)),))
SAFE, UNSAFE = "<answer>safe</answer>", "<answer>unsafe: R1</answer>"


class RedGuard:
    """Calls a picture unsafe if it is mostly red; counts the pictures of each call."""

    def __init__(self):
        self.sizes = []

    def __call__(self, images, policy_texts):
        self.sizes.append(len(images))
        return [(UNSAFE if self.red(image) else SAFE, False) for image in images]

    @staticmethod
    def red(image):
        return image[..., 0].mean() > 150 and image[..., 1].mean() < 100


def colour(path, rgb, size=(16, 16), **options):
    Image.new("RGBA" if len(rgb) == 4 else "RGB", size, rgb).save(path, **options)
    return path


def judge(pictures, answer, **options):
    return judge_pictures(pictures, [POLICY], answer, model_hash="m1", **options)


@pytest.fixture(name="folder")
def _folder(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    colour(folder / "a.png", (255, 0, 0))
    colour(folder / "b.png", (0, 255, 0))
    colour(folder / "sub" / "c.jpg", (0, 0, 255))
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_one_bad_picture_never_stops_the_others(folder):
    records = {os.path.basename(r.picture): r for r in judge([folder], RedGuard())}
    assert {name: (r.decision, r.status) for name, r in records.items()} == {
        "a.png": ("unsafe", "ok"), "b.png": ("safe", "ok"), "c.jpg": ("safe", "ok"),
        "broken.png": ("needs_review", "error:E_TRUNCATED"),
        "empty.png": ("needs_review", "error:E_DECODE"),
        "notes.txt": ("needs_review", "error:E_FORMAT")}
    red = records["a.png"]
    assert red.rule_ids == ("R1",) and red.outputs == (UNSAFE,)
    assert red.pins.policy_hash == POLICY.hash and len(red.image_sha256) == 64


def test_batches_are_never_larger_than_asked(folder, tmp_path):
    pictures = [colour(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(10)]
    guard = RedGuard()
    assert len(judge(pictures, guard, batch_size=4)) == 10
    assert guard.sizes == [4, 4, 2]
    with pytest.raises(ValueError, match="at least 1"):
        judge(pictures, guard, batch_size=0)


@pytest.mark.parametrize(("text", "truncated", "reason"), [
    ("", False, "empty"), ("safe", False, "no_answer"), (SAFE, True, "truncated"),
    (SAFE + SAFE, False, "two_answers"), ("<answer>unsafe: R9</answer>", False, "unknown_rule"),
    (SAFE.upper(), False, "misspelt_tag"), ("<think>" + SAFE + "</think>", False,
                                            "answer_in_think")])
def test_no_malformed_answer_is_safe(folder, text, truncated, reason):
    record, = judge([folder / "b.png"], lambda images, policies: [(text, truncated)] * len(images))
    assert (record.decision, record.status) == ("needs_review", f"invalid:{reason}")
    assert record.outputs == (text,)


@pytest.mark.parametrize("answer", [
    lambda images, policies: [], lambda images, policies: [(SAFE, False)] * (len(images) + 1),
    lambda images, policies: [SAFE] * len(images), lambda images, policies: None,
    lambda images, policies: [(None, False)] * len(images),
    lambda images, policies: [(SAFE, None)] * len(images), lambda images, policies: 1 / 0])
def test_a_broken_model_makes_nothing_safe(folder, answer):
    records = judge([folder], answer)
    assert len(records) == 6 and all(r.decision == "needs_review" for r in records)
    assert sum(r.status == "error:E_MODEL" for r in records) == 3


def test_a_picture_that_breaks_the_model_is_alone_with_it(folder):
    def answer(images, policies):
        if any(RedGuard.red(image) for image in images):
            raise FloatingPointError("NaN score")
        return [(SAFE, False)] * len(images)

    records = {os.path.basename(r.picture): r for r in judge([folder], answer)}
    assert records["a.png"].status == "error:E_MODEL"
    assert "NaN score" in records["a.png"].problem
    assert records["b.png"].decision == records["c.jpg"].decision == "safe"


def test_a_policy_that_does_not_fit_is_named(folder):
    def answer(images, policies):
        raise PromptError("the prompt has 900 tokens and the limit is 512")

    record, = judge([folder / "b.png"], answer)
    assert (record.decision, record.status) == ("needs_review", "error:E_PROMPT")
    assert "900 tokens" in record.problem


def test_transparent_pictures_are_judged_on_both_backgrounds(tmp_path):
    class WhiteIsUnsafe(RedGuard):
        @staticmethod
        def red(image):
            return image.mean() > 128

    clear = colour(tmp_path / "clear.png", (0, 0, 0, 0))
    record, = judge([clear], WhiteIsUnsafe())
    assert (record.decision, record.status) == ("needs_review", "invalid:backgrounds_disagree")
    assert len(record.outputs) == 2
    record, = judge([clear], RedGuard())
    assert record.decision == "safe"


def test_the_worst_frame_wins(tmp_path):
    frames = [Image.new("RGB", (16, 16), (0, 0, 8 * i)) for i in range(6)]
    frames[4] = Image.new("RGB", (16, 16), (255, 0, 0))
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=40)
    record, = judge([tmp_path / "clip.gif"], RedGuard())
    assert (record.decision, record.rule_ids) == ("unsafe", ("R1",))
    assert (record.frames_scored, record.frame_count) == (6, 6)


def test_combining_views():
    safe, review = Verdict(Outcome.SAFE), Verdict(Outcome.NEEDS_REVIEW, problem=Problem.EMPTY)
    one, two = (Verdict(Outcome.UNSAFE, (rule,)) for rule in ("R1", "R2"))
    assert combine([[safe], [one], [review], [two, one]]).rule_ids == ("R1", "R2")
    assert combine([[safe], [review], [safe]]).problem == "empty"
    assert combine([[safe, one]]).problem == "backgrounds_disagree"
    assert combine([[review, one]]).outcome is Outcome.NEEDS_REVIEW
    assert combine([[safe, safe], [safe]]).outcome is Outcome.SAFE
    for nothing in ([], [[]], [[safe], []]):
        with pytest.raises(ValueError, match="no verdict"):
            combine(nothing)


def test_output_is_one_line_a_picture_and_reads_back(folder, tmp_path):
    out = tmp_path / "out" / "verdicts.jsonl"
    seen = []
    records = judge([folder], RedGuard(), out=out, on_record=seen.append)
    assert load_records(out) == records
    assert sorted(r.picture for r in seen) == sorted(r.picture for r in records)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {"decision", "rule_ids", "rationale", "status", "image_sha256", "policy_hash",
            "policy_version", "model_hash"} <= set(lines[0])
    assert not out.with_name("verdicts.jsonl.partial").exists()


def test_a_second_run_asks_the_model_nothing_and_retries_errors(folder, tmp_path):
    out = tmp_path / "verdicts.jsonl"
    first = judge([folder], RedGuard(), out=out)
    content = out.read_bytes()
    guard = RedGuard()
    assert judge([folder], guard, out=out) == first
    assert guard.sizes == [] and out.read_bytes() == content
    colour(folder / "broken.png", (255, 0, 1))
    judge([folder], guard, out=out)
    assert guard.sizes == [1]
    assert {r.picture: r.decision for r in load_records(out)}[
        str(folder / "broken.png")] == "unsafe"


def test_equal_files_are_judged_once(tmp_path):
    pictures = [colour(tmp_path / f"{name}.png", (9, 9, 9)) for name in "abc"]
    guard = RedGuard()
    records = judge(pictures, guard)
    assert guard.sizes == [1] and [r.picture for r in records] == [str(p) for p in pictures]


def test_a_killed_batch_goes_on_where_it_stopped(tmp_path):
    pictures = [colour(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(6)]
    out = tmp_path / "verdicts.jsonl"

    class Killed(RedGuard):
        def __call__(self, images, policy_texts):
            if len(self.sizes) == 2:
                raise KeyboardInterrupt
            return super().__call__(images, policy_texts)

    with pytest.raises(KeyboardInterrupt):
        judge(pictures, Killed(), out=out, batch_size=2)
    assert not out.exists()
    partial = out.with_name("verdicts.jsonl.partial")
    assert len(load_records(partial)) == 4
    partial.write_text(partial.read_text()[:-30])       # and the last line was torn
    guard = RedGuard()
    records = judge(pictures, guard, out=out, batch_size=2)
    assert guard.sizes == [2, 1] and len(records) == 6
    assert load_records(out) == records and not partial.exists()


def test_records_of_other_pictures_stay(folder, tmp_path):
    out = tmp_path / "verdicts.jsonl"
    judge([folder / "a.png"], RedGuard(), out=out)
    judge([folder / "b.png"], RedGuard(), out=out)
    assert [os.path.basename(r.picture) for r in load_records(out)] == ["a.png", "b.png"]


def test_another_policy_or_model_or_file_is_refused(folder, tmp_path):
    out = tmp_path / "verdicts.jsonl"
    judge([folder], RedGuard(), out=out)
    before = out.read_bytes()
    guard = RedGuard()
    with pytest.raises(OutputMismatch, match="model_hash 'm1' there, 'm2' now"):
        judge_pictures([folder], [POLICY], guard, model_hash="m2", out=out)
    edited = Policy("no-red", "2", "No red", (Rule("R1", wordings=("no pink",)),))
    with pytest.raises(OutputMismatch, match="policy_version, policy_hash, policy_text_hash"):
        judge_pictures([folder], [edited], guard, model_hash="m1", out=out)
    assert guard.sizes == [] and out.read_bytes() == before
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary\n")
    with pytest.raises(OutputMismatch, match="line 1"):
        judge([folder], guard, out=diary)
    assert diary.read_text() == "dear diary\n"


def test_an_unwritable_output_fails_before_judging(folder, tmp_path):
    (tmp_path / "file").touch()
    guard = RedGuard()
    with pytest.raises(OSError):
        judge([folder], guard, out=tmp_path / "file" / "verdicts.jsonl")
    assert guard.sizes == []


def test_links_in_folders_are_refused_and_hidden_files_and_the_output_left_out(folder, tmp_path):
    secret = colour(tmp_path / "secret.png", (255, 0, 0))
    (folder / "link.png").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    (folder / ".hidden.png").write_bytes(secret.read_bytes())
    records = {os.path.basename(r.picture): r
               for r in judge([folder], RedGuard(), out=folder / "verdicts.jsonl")}
    assert records["link.png"].status == records["loop"].status == "error:E_READ"
    assert ".hidden.png" not in records and "verdicts.jsonl" not in records
    assert not any(name.endswith(".partial") for name in records)
    named, = judge([folder / "link.png"], RedGuard())
    assert named.decision == "unsafe"


def test_addresses_and_hostile_names(tmp_path):
    name = os.fsdecode(b"\xff<script>alert(1)<" b"\n.png")
    colour(tmp_path / name, (0, 255, 0), format="PNG")
    out = tmp_path / "out" / "verdicts.jsonl"
    records = judge([tmp_path / name, "https://example.org/a.png", "file:///etc/passwd"],
                    RedGuard(), out=out)
    assert [r.status for r in records] == ["ok", "error:E_READ", "error:E_READ"]
    assert len(out.read_text(encoding="ascii").splitlines()) == 3
    assert load_records(out) == records


def test_find_pictures_lists_each_path_once_in_order(folder):
    names = [found.path.name for found in find_pictures([folder / "b.png", folder])]
    assert names == ["b.png", "a.png", "broken.png", "empty.png", "notes.txt", "c.jpg"]


def test_a_record_cannot_be_made_safe_by_mistake():
    pins = Pins("p", "1", "h", "t", "m", "1")
    for decision, status, outputs in (
            ("safe", "error:E_DECODE", ("x",)), ("unsafe", "invalid:empty", ("x",)),
            ("needs_review", "ok", ("x",)), ("safe", "ok", ()), ("fine", "ok", ("x",))):
        with pytest.raises(ValueError):
            VerdictRecord("a.png", decision, status, pins, outputs=outputs)


def test_noise_never_becomes_safe_without_an_answer(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        (tmp_path / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + rng.bytes(rng.integers(0, 400)))
    guard = RedGuard()
    assert {r.decision for r in judge([tmp_path], guard)} == {"needs_review"}
    assert guard.sizes == []
