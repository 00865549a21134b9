"""Several policies at once: a picture is opened and encoded once, a policy has its own verdicts."""

import base64
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from guardjax.cli.assets import model_dir
from guardjax.data.prompts import POLICY_FIRST, PromptError
from guardjax.eval import guard
from guardjax.eval.guard import Guard
from guardjax.eval.journal import OutputMismatch
from guardjax.eval.judge import judge_pictures
from guardjax.eval.policy_set import PolicySetError
from guardjax.eval.scoring import Scoring
from guardjax.eval.verdict_record import load_records
from guardjax.policies import Policy, Rule, Wording

SAFE, UNSAFE = "<answer>safe</answer>", "<answer>unsafe: R1</answer>"
COLOURS = ("red", "green", "blue")
RED, GREEN, BLUE = POLICIES = [
    Policy(f"no-{name}", "1", f"No {name}", (Rule("R1", wordings=(f"no {name}",)),))
    for name in COLOURS]
RED_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP4z8CAFTEMLQkAKP8/wc53yE8AAAAASUVO"
    "RK5CYII=")


class ColourGuard:
    """Calls a picture unsafe if most of it has the colour that its policy bans."""

    def __init__(self, stop_at=None):
        self.calls, self._stop_at = [], stop_at

    def __call__(self, images, policy_texts):
        if len(self.calls) == self._stop_at:
            raise KeyboardInterrupt
        self.calls.append(list(zip(map(id, images), policy_texts, strict=True)))
        return [(self.answer(*pair), False) for pair in zip(images, policy_texts)]

    @staticmethod
    def answer(image, text):
        banned = next(place for place, name in enumerate(COLOURS) if name in text)
        return UNSAFE if image[..., banned].mean() > 128 else SAFE

    @property
    def asked(self):
        return sum(map(len, self.calls))


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """Two pictures of each colour, and a file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place, name in enumerate(COLOURS):
        for shade in (200, 250):
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[..., place] = shade
            Image.fromarray(pixels).save(folder / f"{name}{shade}.png")
    (folder / "zero.png").touch()
    return folder


def judge(pictures, policies, answer, **options):
    return judge_pictures(pictures, policies, answer, model_hash="m1", **options)


def told(records):
    return [(r.picture, r.pins.policy_id, r.decision, r.rule_ids, r.status) for r in records]


def test_under_one_policy_lines_are_what_they_were(tmp_path, monkeypatch):
    """The bytes that were written before there could be several policies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red.png").write_bytes(RED_PNG)
    (tmp_path / "torn.png").write_bytes(RED_PNG[:30])
    judge(["red.png", "torn.png"], [RED], ColourGuard(), out="v.jsonl")
    pins = ('"policy_id": "no-red", "policy_version": "1", "policy_hash": "7ecf67047c1cf298", '
            '"policy_text_hash": "7621727555354aad", "model_hash": "m1", "intake_version": "1", '
            '"scoring": "reasoned"}\n')
    whole, torn = (hashlib.sha256(data).hexdigest() for data in (RED_PNG, RED_PNG[:30]))
    assert (tmp_path / "v.jsonl").read_text() == (
        '{"picture": "red.png", "decision": "unsafe", "status": "ok", "rule_ids": ["R1"], '
        f'"rationale": null, "problem": null, "image_sha256": "{whole}", "image_format": "PNG", '
        '"image_size": [8, 8], "frames_scored": 1, "frame_count": 1, "notes": [], '
        f'"outputs": ["{UNSAFE}"], "p_unsafe": [], ' + pins +
        '{"picture": "torn.png", "decision": "needs_review", "status": "error:E_TRUNCATED", '
        '"rule_ids": [], "rationale": null, "problem": "the PNG file stops before its end", '
        f'"image_sha256": "{torn}", "image_format": null, "image_size": null, '
        '"frames_scored": 0, "frame_count": 0, "notes": [], "outputs": [], "p_unsafe": [], ' + pins)


def test_each_policy_has_the_verdicts_that_it_has_alone(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    together = judge([folder], POLICIES, ColourGuard(), out=out, batch_size=4)
    alone = {policy.id: judge([folder], [policy], ColourGuard()) for policy in POLICIES}
    expected = [record for records in zip(*alone.values(), strict=True) for record in records]
    assert told(together) == told(expected) and len(together) == 7 * 3
    assert load_records(out) == together
    sets = {json.loads(line)["policy_set"] for line in out.read_text().splitlines()}
    assert len(sets) == 1 and sets == {together[0].pins.policy_set} != {""}
    assert {dataclasses.replace(r, pins=dataclasses.replace(r.pins, policy_set=""))
            for r in together} == set(expected)


def test_a_picture_is_opened_once_and_comes_as_one_array(folder, monkeypatch):
    opened = []
    monkeypatch.setattr("guardjax.eval.judge.load_picture", lambda data, limits: (
        opened.append(data), load(data, limits))[1])
    from guardjax.data.intake import load_picture as load
    model = ColourGuard()
    judge([folder], POLICIES, model, batch_size=4)
    assert len(opened) == 7
    assert [len(call) for call in model.calls] == [12, 6]
    for call in model.calls:
        pictures = [picture for picture, _ in call]
        # Policy by policy within a picture, which is one array.
        assert pictures == [each for picture in dict.fromkeys(pictures) for each in [picture] * 3]
        assert [text for _, text in call[:3]] == [p.render(Wording(0)) for p in POLICIES]


def test_views_of_a_picture_are_put_together_under_their_own_policy(tmp_path):
    """Over white it is of every colour, over black of none: a disagreement under each policy."""
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "a-clear.png")
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("black", (255, 0, 0), "black")]
    frames[0].save(tmp_path / "b-clip.gif", save_all=True, append_images=frames[1:], duration=40)
    records = judge([tmp_path], [RED, BLUE], ColourGuard(), batch_size=2)
    assert [(r.decision, r.status, len(r.outputs)) for r in records] == [
        ("needs_review", "invalid:backgrounds_disagree", 2)] * 2 + [
            ("unsafe", "ok", 3), ("safe", "ok", 3)]


def test_a_policy_that_does_not_fit_leaves_the_others_alone(folder):
    calls = []

    def answer(images, texts):
        calls.append(len(images))
        if any("green" in text for text in texts):
            raise PromptError("the prompt has 900 tokens and the limit is 512")
        return ColourGuard()(images, texts)

    records = judge([folder], POLICIES, answer)
    of = {policy.id: [r for r in records if r.pins.policy_id == policy.id] for policy in POLICIES}
    assert {r.status for r in of["no-green"]} == {"error:E_PROMPT", "error:E_DECODE"}
    for policy in (RED, BLUE):
        assert told(of[policy.id]) == told(judge([folder], [policy], ColourGuard()))
    assert calls == [18, 6, 6] + [1] * 6 + [6], "the others are asked whole, not one by one"


def test_a_picture_that_breaks_the_model_under_one_policy_is_alone(folder):
    def answer(images, texts):
        if any("red" in text and ColourGuard.answer(image, text) == UNSAFE
               for image, text in zip(images, texts)):
            raise FloatingPointError("NaN score")
        return ColourGuard()(images, texts)

    records = judge([folder], POLICIES, answer)
    broken = [(r.picture.rsplit("/")[-1], r.pins.policy_id) for r in records
              if r.status == "error:E_MODEL"]
    assert broken == [("red200.png", "no-red"), ("red250.png", "no-red")]
    assert sum(r.status == "ok" for r in records) == 16


def test_a_killed_batch_asks_what_is_missing_and_no_more(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        judge([folder], POLICIES, ColourGuard(stop_at=1), out=out, batch_size=4)
    partial = out.with_name("out.jsonl.partial")
    lines = partial.read_text().splitlines(keepends=True)
    assert len(lines) == 12 + 3         # the file that is no picture has its records at once
    partial.write_text("".join(lines[:4]) + lines[4][:50])      # of the second picture one policy
    model = ColourGuard()
    records = judge([folder], POLICIES, model, out=out, batch_size=4)
    assert model.asked == 18 - 4 and len(model.calls[0]) == 2 + 3 * 3
    assert told(records) == told(judge([folder], POLICIES, ColourGuard()))
    assert load_records(out) == records and not partial.exists()
    again = ColourGuard()
    turned = judge([folder], POLICIES[::-1], again, out=out)
    assert again.asked == 0, "in whatever order they are given, it is the same set"
    assert sorted(told(turned)) == sorted(told(records))


def test_one_file_is_of_one_set_of_policies(folder, tmp_path):
    both, one, model = tmp_path / "both.jsonl", tmp_path / "one.jsonl", ColourGuard()
    judge([folder], [RED, BLUE], ColourGuard(), out=both)
    judge([folder], [RED], ColourGuard(), out=one)
    before = both.read_bytes(), one.read_bytes()
    edited = dataclasses.replace(BLUE, version="2")
    for out, policies, reason in (
            (both, [RED], "policies no-red, no-blue there, no-red now"),
            (both, POLICIES, "policies no-red, no-blue there, no-red, no-green, no-blue now"),
            (both, [RED, GREEN], "another policy_id"),
            (both, [RED, edited], "policy_version '1' there, '2' now"),
            (one, [RED, BLUE], "policies no-red there, no-red, no-blue now")):
        with pytest.raises(OutputMismatch, match=reason):
            judge([folder], policies, model, out=out)
    with pytest.raises(OutputMismatch, match=r"another model_hash \(model_hash 'm1' there, 'm2'"):
        judge_pictures([folder], [RED, BLUE], model, model_hash="m2", out=both)
    assert model.asked == 0 and before == (both.read_bytes(), one.read_bytes())


def test_pins_that_are_no_text_are_no_record(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    judge([folder], [RED], ColourGuard(), out=out)
    out.write_text(out.read_text().replace('"policy_id": "no-red"', '"policy_id": {}'))
    with pytest.raises(OutputMismatch, match="line 1: not a verdict record"):
        judge([folder], [RED], ColourGuard(), out=out)


@pytest.mark.parametrize(("policies", "reason"), [
    ([], "there is no policy; give at least one"),
    ([RED, BLUE, RED], "no-red and no-red are the same policy .no-red, version 1, hash 7ecf6704"),
])
def test_policies_are_given_once(folder, tmp_path, policies, reason):
    with pytest.raises(PolicySetError, match=reason):
        judge([folder], policies, ColourGuard(), out=tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(("template", "trunks", "branches"), [
    ("image_first", [4, 4], 4), (POLICY_FIRST, [2, 2], 8)])
def test_the_shipped_guard_encodes_what_is_shared_once(
        folder, tmp_path, monkeypatch, template, trunks, branches):
    """Eight pictures, three policies, sixteen prompts a pass: a trunk a picture or a policy."""
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(8):
        pictures.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(pictures[-1])
    real, seen = guard.branch_prompts, []

    def watched(batcher, examples, number, **options):
        prompts = real(batcher, examples, number, **options)
        seen.append((prompts.trunk.tokens.shape[0], number))
        return prompts

    monkeypatch.setattr(guard, "branch_prompts", watched)
    model = Guard.load(model_dir("guard"), batch=16, scoring=Scoring("probability"))
    model = dataclasses.replace(
        model, batcher=dataclasses.replace(model.batcher, template=template))
    together = judge(pictures, POLICIES, model.answer, batch_size=8)
    assert seen == [(number, branches) for number in trunks]
    # Alone, with every prompt sent through whole.
    whole = dataclasses.replace(model, branches=1)
    for place, policy in enumerate(POLICIES):
        alone = judge(pictures, [policy], whole.answer, batch_size=8)
        for one, other in zip(together[place::3], alone, strict=True):
            assert one.pins.policy_hash == other.pins.policy_hash == policy.hash
            assert one.p_unsafe == pytest.approx(other.p_unsafe, rel=2e-4)
            assert one.decision == other.decision
