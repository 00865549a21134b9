"""A report as a browser has it: its script runs, nothing hostile does, nothing sticks out."""

import dataclasses
import html
import json
import re
import subprocess

import numpy as np
import pytest

from guardjax.eval.figures import heat_maps
from guardjax.eval.gallery import Picture, gallery_cases
from guardjax.eval.records import Prediction
from guardjax.eval.report import (
    PlainTable,
    Report,
    ReportFigure,
    ReportTable,
    render_report,
)
from guardjax.eval.tables import Column, ResultRow
from guardjax.eval.verdict_figures import confusion_figures, confusion_tables, pair_figures
from tests.eval.fake_report import fake_report

DESKTOP, PHONE = 1280, 390
ATTACK = ("<script>attacked = true</script><img src=x onerror='attacked = true'>"
          "\"' onclick=\"attacked = true\" </title></style><style>*{display:none}</style>")
LONG = "very_long_name_" * 20

# Functions for the scripts of tests. Every policy of a case is shown with it.
HELPERS = """
const all = selector => [...document.querySelectorAll(selector)];
const seen = element => getComputedStyle(element).display !== "none";
const cases = () => all(".case").filter(seen).map(each => each.querySelector("h3").textContent);
const press = selector => document.querySelector(selector).click();
const blur = () => all(".veil img").map(each => getComputedStyle(each).filter);
"""


def in_browser(browser, page, script, folder, width):
    """What the function body `script` returns after the page's own script, in a frame as wide."""
    (folder / "page.html").write_text(page.replace("</body>", f"""<script>
window.addEventListener("load", () => {{
  {HELPERS}
  const found = (() => {{ {script} }})();
  parent.postMessage(JSON.stringify(found), "*");
}});
</script></body>"""))
    # A window is never as narrow as a phone, a frame is.
    (folder / "frame.html").write_text(f"""<!doctype html><iframe src="page.html"
        style="width: {width}px; height: 900px; border: 0"></iframe><pre></pre><script>
window.addEventListener("message", event => {{
  document.querySelector("pre").textContent = event.data;
}});
</script>""")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000",
         "--virtual-time-budget=5000", "--dump-dom", f"file://{folder / 'frame.html'}"],
        capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.S)
    assert found and found[1], f"the page said nothing: {done.stdout}{done.stderr}"
    return json.loads(html.unescape(found[1]))


def verdict(image, policy, label, outcome, variant):
    return Prediction(
        model="m", variant=variant, seed=0, split="test", kind="judge", image_id=image,
        example_id=f"{image}/{policy}", policy_id=policy, label=label, outcome=outcome,
        output=f"<answer>{outcome}</answer>")


def veiled_gallery():
    """Four pictures of real data. Of `last`, picture w is wrong, r needs review, f flips."""
    said = {("a", "p"): ("safe", "safe"), ("a", "q"): ("safe", "safe"),
            ("w", "p"): ("safe", "unsafe"), ("w", "q"): ("safe", "safe"),
            ("r", "p"): ("unsafe", "needs_review"), ("r", "q"): ("unsafe", "unsafe"),
            ("f", "p"): ("safe", "safe"), ("f", "q"): ("unsafe", "unsafe")}
    rows = [verdict(image, policy, label, outcome if variant == "last" else label, variant)
            for variant in ("first", "last") for (image, policy), (label, outcome) in said.items()]
    pictures = {name: Picture(np.full((32, 48, 3), 90, np.uint8), name, veiled=True)
                for name in "awrf"}
    return gallery_cases(rows, pictures, {name: (name, "R1: no knife.") for name in "pq"},
                         variants=["first", "last"])


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_filters_show_what_they_say_and_veils_lift_one_by_one(browser, tmp_path, width):
    found = in_browser(browser, render_report(Report(title="t", cases=veiled_gallery())), """
        const found = {start: cases(), blurred: blur(), bar: seen(document.querySelector(
            ".controls")), models: {}};
        for (const model of ["0", "1"]) {
            press(`[data-model="${model}"]`);
            const by = found.models[model] = {};
            for (const show of ["right", "wrong", "review", "flips", "all"]) {
                press(`[data-show="${show}"]`);
                by[show] = cases();
                by[show + " count"] = document.querySelector(".count").textContent;
                by[show + " pressed"] = all(".controls [aria-pressed=true]").length;
            }
            by.answers = new Set(all(".answer").filter(seen).map(
                each => each.querySelector(".who").textContent)).size;
        }
        press(".veil");
        found.lifted = blur();
        found.pressed = document.querySelector(".veil").getAttribute("aria-pressed");
        press(".veil");
        found.back = blur();
        return found;""", tmp_path, width)
    everything = sorted("awrf")
    assert found["bar"] and sorted(found["start"]) == everything
    expected = {
        "0": {"right": everything, "wrong": [], "review": [], "flips": ["f"], "all": everything},
        "1": {"right": ["a", "f"], "wrong": ["r", "w"], "review": ["r"], "flips": ["f"],
              "all": everything}}
    for model, filters in expected.items():
        for show, names in filters.items():
            assert sorted(found["models"][model][show]) == names, (model, show)
            assert found["models"][model][f"{show} count"] == f"{len(names)} of 4"
            assert found["models"][model][f"{show} pressed"] == 2
        assert found["models"][model]["answers"] == 1
    assert all(re.fullmatch(r"blur\(\d\dpx\)", each) for each in found["blurred"])
    assert found["lifted"] == ["none", *found["blurred"][1:]] and found["pressed"] == "true"
    assert found["back"] == found["blurred"]


def hostile_report():
    """Hostile words wherever a model, a policy or a file name may put some, and long names."""
    variants = [f"a{ATTACK}", f"b{LONG}"]
    policies = [ATTACK, LONG, "$\\frac{$", "house rules"]
    rows = [verdict(f"{ATTACK}{image}", policy, "unsafe" if (image + place) % 2 else "safe",
                    "unsafe" if image % 3 else "safe", variant)
            for variant in variants for image in range(6) for place, policy in enumerate(policies)]
    rows = [dataclasses.replace(row, output=f"<think>{ATTACK}</think><answer>safe</answer>",
                                cited_rules=(ATTACK, LONG), problem=ATTACK) for row in rows]
    category_of = {row.example_id: policies[int(row.image_id[-1]) % 3] for row in rows}
    results = [ResultRow(variant, split, "f1", 0.5, 0.4, 0.6, 9, source=ATTACK)
               for variant in variants for split in (ATTACK, LONG)]
    columns = [Column(split, split, "f1") for split in (ATTACK, LONG)]
    return Report(
        title=f"{ATTACK} {LONG}", subtitle=ATTACK + LONG, lead=[ATTACK, LONG], rows=results,
        columns=columns, tables=[
            ReportTable(LONG, results, variants, columns, ATTACK),
            ReportTable(ATTACK, results, variants, columns, LONG, folded=True)],
        contrasts=[ResultRow(f"{ATTACK} − {LONG}", ATTACK, ATTACK, 0.1, 0.0, 0.2, 9)],
        plain_tables=[PlainTable(ATTACK + LONG, (ATTACK, LONG), [(ATTACK, LONG)], ATTACK + LONG),
                      *confusion_tables(rows, category_of)],
        figures=[*pair_figures(rows), *confusion_figures(rows, category_of),
                 ReportFigure(ATTACK + LONG, heat_maps({ATTACK: np.eye(1)}, [LONG], [ATTACK]),
                              ATTACK + LONG)],
        cases=gallery_cases(rows, {row.image_id: Picture(np.zeros((8, 8, 3), np.uint8), LONG)
                                   for row in rows},
                            {name: (name, f"{LONG} {name}") for name in policies},
                            variants=variants, notes={row.image_id: ATTACK for row in rows}),
        provenance={ATTACK: LONG, LONG: ATTACK})


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("make", [hostile_report, lambda: fake_report(draws=5)],
                         ids=["hostile", "usual"])
def test_nothing_hostile_runs_and_nothing_sticks_out(browser, tmp_path, make, width):
    found = in_browser(browser, render_report(make()), """
        const root = document.documentElement;
        const inside = each => each.closest(".scroll") && !each.matches(".scroll");
        return {
            attacked: typeof attacked !== "undefined",
            scripts: document.scripts.length, styles: all("style").length, bad: all(
                "[onclick], [onerror], link, iframe, object").length,
            width: root.clientWidth, wide: root.scrollWidth,
            hidden: all("h1, h2, table, figure").filter(each => !seen(each)).length,
            tables: all("table").length, figures: all("figure img").filter(
                each => each.naturalWidth > 100 && each.clientWidth > 100).length,
            out: all("main *").filter(each => seen(each) && !inside(each)
                && each.getBoundingClientRect().right > root.clientWidth + 1).map(
                each => each.outerHTML.slice(0, 120)),
        };""", tmp_path, width)
    assert not found["attacked"] and not found["bad"]
    assert (found["scripts"], found["styles"]) == (2, 1), "the page's own, and the test's"
    assert found["hidden"] == 0 and found["tables"] > 1 and found["figures"] == len(make().figures)
    assert found["out"] == [] and found["wide"] <= found["width"] == width
