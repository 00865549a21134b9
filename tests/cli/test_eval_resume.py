"""`guardjax eval` over the policy world, stopped and given again: nothing lost, nothing mixed."""

import io
import json
import shutil

import jax
import pytest
from rich.console import Console

import guardjax.models as models
from guardjax.cli.kept_answers import whole_answers
from guardjax.eval import guard
from guardjax.eval.answer_file import AnswerFile, Pins
from guardjax.eval.records import Prediction

POLICIES = {"weapons": "weapons", "animals": "animals"}
PROMPTS = 12


@pytest.fixture(name="words")
def _words(tiny_model, tmp_path):
    """Six pictures under two policies, four prompts at a time."""
    for name, when in POLICIES.items():
        (tmp_path / f"{name}.yaml").write_text(
            f"schema: 1\nid: no-{name}\nversion: '1'\ntitle: No {name}\n"
            f"rules:\n  - id: R1\n    when: {when}\n")
    return ("eval", "--pairs", PROMPTS // 4, "--policies",
            *(tmp_path / f"{name}.yaml" for name in POLICIES))


@pytest.fixture(name="asked")
def _asked(monkeypatch):
    """The prompts of every forward pass, in small batches; `asked.stop` raises before a pass."""
    class Asked(list):
        stop = None

    asked, answer, load = Asked(), guard.Guard._answer_batch, guard.Guard.load.__func__

    def answer_batch(self, examples, branches):
        if asked.stop is not None and len(asked) == asked.stop[0]:
            raise asked.stop[1]
        asked.append([example.example_id for example in examples])
        return answer(self, examples, branches)

    monkeypatch.setattr(guard.Guard, "load", classmethod(
        lambda cls, path, batch=4, **more: load(cls, path, 4, **more)))
    monkeypatch.setattr(guard.Guard, "_answer_batch", answer_batch)
    return asked


def written(out):
    """What an evaluation leaves, as bytes."""
    return [(out / name).read_bytes() for name in ("predictions.jsonl", "results.json")]


def looks(out):
    return [json.loads(line)["prompts"] for line in (out / "looks.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("scoring, error", [
    ("reasoned", KeyboardInterrupt()),
    pytest.param("probability", RuntimeError("the device is gone"), marks=pytest.mark.slow)])
def test_an_interrupted_eval_ends_as_one_that_nobody_stopped(
        guardjax, tiny_model, tmp_path, words, asked, capsys, scoring, error):
    words = (*words, "--model", tiny_model, "--scoring", scoring, "--out")
    assert guardjax(*words, tmp_path / "whole") == 0
    whole, out = list(asked), tmp_path / "out"
    assert sum(map(len, whole)) == PROMPTS and len(whole) == 3
    asked.clear()
    asked.stop = (2, error)
    with pytest.raises(type(error)):
        guardjax(*words, out)
    said = capsys.readouterr().out
    assert ("8 of 12 answers are kept, and the same command goes on" in said) == (
        scoring == "reasoned")
    assert not (out / "predictions.jsonl").exists() and looks(out) == [PROMPTS]
    asked.stop = None
    assert guardjax(*words, out) == 0
    assert asked == whole and looks(out) == [PROMPTS, 4]
    said = capsys.readouterr().out
    assert "8 of 12 answers are stored; going on from there" in said
    assert "4 prompts, 8 stored before, compilations: 1 " in said
    assert written(out) == written(tmp_path / "whole")
    # Given once more, nothing is asked.
    assert guardjax(*words, out) == 0
    assert asked == whole and looks(out) == [PROMPTS, 4]
    assert "12 answers are stored, none is asked for" in capsys.readouterr().out
    assert written(out) == written(tmp_path / "whole")


def test_a_torn_line_is_asked_again_among_the_same_prompts(
        guardjax, tiny_model, tmp_path, words, asked):
    words = (*words, "--model", tiny_model, "--scoring", "probability", "--out", tmp_path / "out")
    assert guardjax(*words) == 0
    whole, before = list(asked), written(tmp_path / "out")
    (file,) = (tmp_path / "out/answers").iterdir()
    lines = file.read_text().splitlines(keepends=True)
    # The second pass was cut within its second line, and the third never came.
    file.write_text("".join(lines[:1 + 5]) + lines[6][:30])
    asked.clear()
    assert guardjax(*words) == 0
    assert asked == whole[1:] and looks(tmp_path / "out") == [PROMPTS, 7]
    assert written(tmp_path / "out") == before
    assert sorted(file.read_text().splitlines(keepends=True)) == sorted(lines)


def test_answers_of_another_run_are_refused_before_anything_is_asked(
        guardjax, tiny_model, tmp_path, words, asked, capsys):
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copytree(tiny_model, mine)
    cfg, params = models.load_hf(tiny_model)
    shutil.copytree(tiny_model, other)
    models.save_hf(jax.tree.map(lambda x: x + 1, params), cfg, tmp_path / "changed")
    shutil.copy(tmp_path / "changed/model.safetensors", other)
    hashes = {name: guard.weights_hash(name) for name in (mine, other)}
    out = tmp_path / "out"
    words = (*words, "--out", out)
    assert guardjax(*words, "--model", mine) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    asked.clear()

    def refused(*more):
        capsys.readouterr()
        assert guardjax(*words, *more) == 2
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        return " ".join(capsys.readouterr().err.split())

    said = refused("--model", other)
    assert all(f"{str(name)!r} (hash {found})" in said for name, found in hashes.items())
    shutil.copy(other / "model.safetensors", mine)
    said = refused("--model", mine)
    assert f"{hashes[mine]!r} there, {hashes[other]!r} now" in said
    shutil.copy(tiny_model / "model.safetensors", mine)
    assert "way of asking 'float32, xla, reasoned, image_first, seed 0' there, 'float32, xla, " \
        "one_token, image_first, seed 0' now" in refused("--model", mine, "--scoring", "one_token")
    assert "policy_world-" in refused("--model", mine, "--pairs", 2)
    assert "another folder with --out" in said and not asked


def test_the_bar_goes_on_from_where_it_stood(tmp_path):
    pins = Pins("guard", "aaaa", "world", "dev", "1234")
    rows = [Prediction(model="aaaa", variant="guard", seed=0, split="dev", example_id=str(i),
                       kind="judge", image_id="p", label="safe", outcome="safe") for i in range(5)]
    cells = [("dev", row.example_id) for row in rows]
    AnswerFile(tmp_path / "a.jsonl", pins, cells).append(rows[:2])

    def told(terminal):
        shown = io.StringIO()
        stored = AnswerFile(tmp_path / "a.jsonl", pins, cells)
        console = Console(file=shown, force_terminal=terminal, width=200)
        fake = type("Fake", (), {"num_programs": 1, "num_buckets": 1})
        assert whole_answers(stored, fake, lambda _: [rows[2:3], rows[3:]], tmp_path,
                             console) == rows
        return shown.getvalue()

    file = (tmp_path / "a.jsonl").read_bytes()
    said = told(terminal=True)
    assert "2 of 5 answers are stored; going on from there" in said and "2/5" in said
    assert "0/5" not in said
    (tmp_path / "a.jsonl").write_bytes(file)
    assert "2/5" not in told(terminal=False) and not (tmp_path / "looks.jsonl").exists()
