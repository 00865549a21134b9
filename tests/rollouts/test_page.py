"""The page is one file, loads nothing, escapes everything; bad folders are refused by name."""

import dataclasses
import io
import json
import re

import pytest
from PIL import Image

from guardjax.cli import main
from guardjax.rollouts.curves import CURVES, draw_curves
from guardjax.rollouts.page import choose_evenly, render_page, show_group
from guardjax.rollouts.run_log import read_run
from guardjax.rollouts.signs import find_signs
from tests.eval.test_report import ATTACK, tags
from .fake_run import GROUP, STEPS, write_run

SFT = [{"step": step, "stage": "sft", "loss": 1 / step, "grad_norm": 0.1} for step in (5, 10, 15)]


def rollouts(*words):
    return main.main(["rollouts", *map(str, words)])


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """The folder of a run that gamed its reward; tests must not change it."""
    return write_run(tmp_path_factory.mktemp("runs") / "padded", "padded")


@pytest.fixture(scope="module", name="run")
def _run(folder):
    return read_run(folder)


def test_the_verb_writes_a_page_and_curves(folder, tmp_path, capsys):
    assert rollouts(folder, "--out", tmp_path / "page.html") == 0
    said = capsys.readouterr().out
    assert "look: High reward while wrong." in said and f"page: {tmp_path / 'page.html'}" in said
    names = {file.stem for file in (folder / "curves").iterdir()}
    assert names == {curve.name for curve in CURVES}
    for file in (folder / "curves").iterdir():
        assert min(Image.open(file).size) > 300
    page = (tmp_path / "page.html").read_text()
    for text in ("6 of 11 signs", "Signs of gaming", "Clip fraction", "padded think, wrong",
                 "no knife may be shown", "stands for"):
        assert text in page
    assert page.count('<article class="rollout"') == len(read_run(folder).groups)


def test_nothing_is_loaded_from_outside(run):
    page = render_page(run, find_signs(run), draw_curves(run.metrics[:3]), groups=8)
    for tag, attributes in tags(page.replace("<input", "<img").replace("<hr", "<img")):
        assert tag not in ("link", "iframe", "object", "base", "form", "svg")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "src" or value.startswith("data:image/png;base64,")
            assert name != "href" or value.startswith("#")
    assert "default-src 'none'" in page and "http://" not in page and "https://" not in page


def test_hostile_text_is_escaped_everywhere(run):
    def spoilt(value):
        return dataclasses.replace(value, **{
            field.name: ATTACK for field in dataclasses.fields(value)
            if isinstance(getattr(value, field.name), str) and field.name != "label"})

    groups = tuple(
        dataclasses.replace(spoilt(group), answers=tuple(
            dataclasses.replace(spoilt(answer), parts={ATTACK: 1.0, "b": 2.0})
            for answer in group.answers)) for group in run.groups)
    metrics = tuple({**line, "stage": ATTACK} for line in run.metrics)
    spoilt_run = dataclasses.replace(run, groups=groups, metrics=metrics)
    page = render_page(spoilt_run, find_signs(spoilt_run), [], groups=9)
    assert "<img src=x" not in page and page.count("<script>") == page.count("</script>") == 1
    assert "&lt;img src=x" in page
    tags(page.replace("<input", "<img"))


def test_a_page_of_fewer_groups_keeps_whole_steps_from_first_to_last(run):
    kept = choose_evenly(run.groups, 30)
    steps = sorted({group.step for group in kept})
    assert len(kept) <= 32 and steps[0] == 10 and steps[-1] == 10 * STEPS and len(steps) >= 3
    for step in steps:
        assert sum(g.step == step for g in kept) == sum(g.step == step for g in run.groups)
    assert choose_evenly(run.groups, len(run.groups)) == list(run.groups)
    assert {group.step for group in choose_evenly(run.groups, 1)} == {10 * STEPS}
    page = render_page(run, [], [], groups=30)
    assert f"of {len(run.groups)} recorded" in page


def test_equal_answers_are_counted_and_the_best_paid_come_first(run):
    for group in run.groups[:20]:
        said = show_group(group).said
        assert sum(each.count for each in said) == GROUP
        rewards = [each.answer.reward for each in said]
        assert rewards == sorted(rewards, reverse=True)
        assert len({(each.answer.text, each.answer.reward) for each in said}) == len(said)


def test_every_filter_of_the_page_has_what_it_filters_by(run):
    """Names in the script, in the controls and in the rows are the same."""
    page = render_page(run, [], [], groups=400)
    script = page[page.index("<script>"):]
    controls = set(re.findall(r'data-filter="(\w+)"', page))
    assert controls == {"from", "to", "low", "high", "text", "sort", "outcome", "right", "problem",
                        "order"}
    assert all(f"want.{name}" in script for name in controls)
    row = re.search(r'<tr class="(?:right|wrong)" ([^>]+)>', page)[1]
    for name in re.findall(r"row\.dataset\.(\w+)", script):
        assert f"data-{name}=" in row
    for value in re.findall(r'<option value="-?(step|mean|std|right)"', page):
        assert f'data-{value}="' in page
    assert {value for value in re.findall(r'data-sort="(\w+)"', page)} <= set(
        re.findall(r'<option value="(\w+)"', page))


def test_a_run_of_sft_alone_says_so_and_has_curves(tmp_path, capsys):
    write_lines(tmp_path / "metrics.jsonl", SFT)
    assert rollouts(tmp_path) == 0
    said = capsys.readouterr().out
    assert "This run has sampled no answers: its stages so far (sft)" in said
    assert {file.name for file in (tmp_path / "curves").iterdir()} == {"loss.png", "grad_norm.png"}
    page = (tmp_path / "rollouts.html").read_text()
    assert "sampled no answers" in page and "Signs of gaming" not in page and "<script>" not in page


def test_a_run_without_groups_says_how_to_get_them(folder, tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text())
    assert rollouts(tmp_path) == 0
    assert "log.groups_every_steps" in capsys.readouterr().out
    page = (tmp_path / "rollouts.html").read_text()
    assert "1 of 11 signs of reward gaming asks for a look. 7 could not be measured." in page


def test_stages_are_named_where_several_have_a_curve():
    lines = SFT + [{**line, "stage": "grpo", "step": line["step"] + 15} for line in SFT]
    both, one = draw_curves(lines), draw_curves(SFT)
    assert [each.curve.name for each in both] == [each.curve.name for each in one]
    assert all(a.png != b.png for a, b in zip(both, one, strict=True))
    assert draw_curves(lines) == both       # the same bytes twice
    assert Image.open(io.BytesIO(both[0].png)).format == "PNG"


def test_folders_that_are_no_runs_are_refused(tmp_path, capsys):
    assert rollouts(tmp_path / "gone") == 2
    assert "gone is not there; give the folder of a run" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert rollouts(tmp_path / "file") == 2
    assert "file is a file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert rollouts(tmp_path / "empty") == 2
    assert "has no metrics.jsonl, so it is no run's folder; give" in capsys.readouterr().err
    for seed in range(7):
        write_lines(tmp_path / f"rows/grpo/seed{seed}/metrics.jsonl", SFT)
    assert rollouts(tmp_path / "rows") == 2
    message = capsys.readouterr().err
    assert "runs are in" in message and "grpo/seed4 and 2 more" in message
    (tmp_path / "new").mkdir()
    (tmp_path / "new/metrics.jsonl").write_text("")
    assert rollouts(tmp_path / "new") == 2
    assert "is empty: the run has not come to its first line" in capsys.readouterr().err
    assert rollouts(tmp_path / "rows/grpo/seed0", "--out", tmp_path) == 2
    assert "is a folder; name a file" in capsys.readouterr().err


@pytest.mark.parametrize("file, number, change, message", [
    ("metrics.jsonl", 2, lambda line: line[:40], "not JSON"),
    ("metrics.jsonl", 3, lambda line: "[1]", "not a JSON object"),
    ("metrics.jsonl", 1, lambda line: '{"loss": 1}', "there is no 'step'"),
    ("groups.jsonl", 4, lambda line: line[:-9], "not JSON"),
    ("groups.jsonl", 2, lambda line: line.replace('"tokens": ', '"tokens": "x", "t": ', 1),
     "answer 1: 'tokens' is 'x', which is not of type int"),
    ("groups.jsonl", 5, lambda line: re.sub('"answers": .*]', '"answers": []', line),
     "a group without answers"),
    ("groups.jsonl", 3, lambda line: line.replace('"label": ', '"label": "fine", "l": ', 1),
     "'label' is 'fine', which is neither safe nor unsafe"),
    ("groups.jsonl", 2, lambda line: re.sub('"gold_rules": .*?]', '"gold_rules": ["1<"]', line),
     "'gold_rules' is ['1<'], which is not a list of rule ids"),
    ("groups.jsonl", 1, lambda line: line.replace('"mean": ', '"mean": "a", "m": ', 1),
     "'mean' is 'a', which is not of type float | None"),
])
def test_a_broken_line_is_named(folder, tmp_path, capsys, file, number, change, message):
    for name in ("metrics.jsonl", "groups.jsonl"):
        lines = (folder / name).read_text().split("\n")
        if name == file:
            lines[number - 1] = change(lines[number - 1])
        (tmp_path / name).write_text("\n".join(lines))
    assert rollouts(tmp_path) == 2
    error = capsys.readouterr().err
    assert f"{file}, line {number}" in error and message in error
    assert not (tmp_path / "rollouts.html").exists()


def test_a_line_that_is_still_being_written_is_left_out(folder, tmp_path):
    for name in ("metrics.jsonl", "groups.jsonl"):
        (tmp_path / name).write_text((folder / name).read_text() + '{"step": 13')
    assert len(read_run(tmp_path).groups) == len(read_run(folder).groups)
