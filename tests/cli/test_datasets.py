"""Training and measuring on annotated pictures from the command line, on files of a page each."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

import guardjax.models as models
from guardjax.cli import compose
from guardjax.eval import guard
from guardjax.eval.records import load_predictions
from guardjax.eval.tables import load_results
from guardjax.train.metrics import read_metrics
from tests.data import dataset_files as files

from .conftest import RL, STAGE, write_config

OWN_CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs/own_data/own.py"


@pytest.fixture(scope="module", name="own")
def _own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    files.own(folder)
    return folder


@pytest.fixture(scope="module", name="trained")
def _trained(guardjax, own, tiny_model, tmp_path_factory):
    """The shipped config on a person's folder, a few steps of it."""
    out = tmp_path_factory.mktemp("runs") / "own"
    # The numbers of STAGE and RL, whose programs other tests of this folder have compiled.
    status = guardjax(
        "train", "--config", OWN_CONFIG, "--out", out, f"base={tiny_model}",
        f"dataset.dir={own}", f"dataset.policy={own / 'house.yaml'}", "log.every_steps=1",
        "stages.1.rl.group_size=2", "stages.1.rl.max_tokens=4", "stages.1.rl.entropy_coef=0.1",
        "stages.1.rl.temperature=1.0", "stages.1.rl.reward=letters", *(
            f"stages.{k}.{change}" for k in (0, 1) for change in (
                "steps=12", "batch=4", "optim.lr=0.01", "optim.warmup_steps=1", "freeze=visual")))
    assert status == 0
    return out


def test_own_pictures_go_from_fine_tuning_to_a_report(trained, tiny_model, own):
    metrics = read_metrics(trained / "metrics.jsonl")
    assert [line["stage"] for line in metrics] == ["sft"] * 12 + ["grpo"] * 12
    assert all(line["skipped"] == 0 and line["grad_norm"] > 0 for line in metrics)
    _, before = models.load_hf(tiny_model)
    _, after = models.load_hf(trained / "model")
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before["model"], after["model"])
    assert all(value > 0 for value in jax.tree.leaves(moved))

    rows = load_predictions(trained / "predictions.jsonl")
    assert [row.variant for row in rows] == ["base"] * 4 + ["trained"] * 4
    assert {row.label for row in rows} == {"safe", "unsafe"}
    assert {row.policy_id for row in rows} == {"house"}
    page = (trained / "report.html").read_text()
    for words in ("own, split test", "always_unsafe", "Rows by policy", "4 rows of"):
        assert words in page
    # What it was trained on is not what it is measured on.
    groups = read_metrics(trained / "groups.jsonl")
    asked = {group["example_id"] for group in groups}
    assert asked and not asked & {row.example_id for row in rows}


def test_the_numbers_are_those_of_scikit_learn(trained):
    predictions = load_predictions(trained / "predictions.jsonl")
    results = {(r.variant, r.split, r.metric): r.value for r in load_results(
        trained / "results.json")}
    for variant in ("base", "trained"):
        mine = [row for row in predictions if row.variant == variant]
        gold = [row.label == "unsafe" for row in mine]
        # An invalid answer is wrong.
        said = [row.outcome == "unsafe" if row.outcome != "needs_review" else not label
                for row, label in zip(mine, gold, strict=True)]
        assert results[variant, "test", "accuracy"] == pytest.approx(accuracy_score(gold, said))
        assert results[variant, "test", "f1"] == pytest.approx(f1_score(gold, said))
    assert results["always_safe", "test", "accuracy"] == 0.5
    assert results["always_unsafe", "test", "f1"] == pytest.approx(2 / 3, abs=1e-6)


def test_another_look_at_the_data_is_another_run(guardjax, trained, own, tiny_model, tmp_path,
                                                 capsys):
    """The folder of a run belongs to its rows: one relabelled picture is refused."""
    changed = tmp_path / "own"
    files.own(changed)
    text = (changed / "images.csv").read_text()
    (changed / "images.csv").write_text(text.replace("1.png,unsafe,dark", "1.png,safe,"))
    config = {"name": "own", "base": str(tiny_model), "stages": [{"kind": "sft"} | STAGE],
              "dataset": {"format": "own", "dir": str(own), "policy": str(own / "house.yaml")}}
    run = compose.resolve(config)
    assert compose.claim_of(run) == compose.claim_of(run)
    config["dataset"] |= {"dir": str(changed)}
    other = compose.claim_of(compose.resolve(config)).config_text
    assert other.splitlines()[-1] != compose.claim_of(run).config_text.splitlines()[-1]


def dataset_config(tmp_path, base, data, **more):
    """SFT and GRPO, as all runs of this folder have them."""
    stages = [{"kind": kind} | STAGE | ({"rl": RL} if kind == "grpo" else {})
              for kind in ("sft", "grpo")]
    return write_config(tmp_path / "config.py", name="data", base=str(base), stages=stages,
                        dataset=data, **more)


@pytest.mark.slow
def test_varied_policies_on_real_labels(guardjax, tiny_model, tmp_path):
    """LlavaGuard's exceptions: every pair is one picture under two policies that disagree."""
    files.llavaguard(tmp_path / "llavaguard", split="train")
    config = dataset_config(tmp_path, tiny_model, {
        "format": "llavaguard", "dir": str(tmp_path / "llavaguard"), "flips": 0.0,
        "exceptions": 1.0})
    assert guardjax("train", "--config", config, "--out", tmp_path / "run") == 0
    metrics = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [line["stage"] for line in metrics] == ["sft"] * 12 + ["grpo"] * 12
    assert all(line["skipped"] == 0 and line["grad_norm"] > 0 for line in metrics)
    groups = [line for line in read_metrics(tmp_path / "run/groups.jsonl")]
    labels = [group["label"] for group in groups]
    assert labels.count("safe") == labels.count("unsafe") > 0
    assert all("is declared as non-violating" in group["policy"] for group in groups)


def test_eval_over_a_benchmark(guardjax, tiny_model, tmp_path, capsys):
    files.safe_edit_bench(tmp_path / "data")
    assert guardjax("eval", "--dataset", "safeeditbench", "--dir", tmp_path / "data", "--model",
                    tiny_model, "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "By policy" in shown and "always_safe" in shown
    results = load_results(tmp_path / "out/results.json")
    found = {(r.variant, r.split, r.metric): r for r in results}
    # Accuracy where no picture is unsafe, and the paper's trivial macro-F1.
    assert found["always_safe", "test/L1", "macro_f1"].value == 1
    assert found["always_safe", "test", "macro_f1"].value == pytest.approx(1 / 3, abs=1e-6)
    assert found["always_safe", "test", "pss"].value == 0
    assert found[str(tiny_model), "test", "accuracy"].n == 9
    looks = (tmp_path / "out/looks.jsonl").read_text().splitlines()
    assert json.loads(looks[0])["prompts"] == 9


def test_llavaguard_has_the_numbers_of_its_paper(guardjax, tiny_model, tmp_path, capsys):
    """Two pictures under the usual policy, and relaxed: the exception is called safe."""
    rows = files.llavaguard_rows(4)
    relaxed = ["O1 is declared as non-violating", "O3 is declared as non-violating"]
    for source, words in zip((rows[0], rows[2]), relaxed, strict=True):
        rows.append(source | {"id": f"{source['id']}-relaxed", "rating": "Safe",
                              "policy": source["policy"] + f"category {words}.\n"})
    for row in rows[4:]:
        head, _, tail = row["policy"].partition("Assessment")
        row["policy"] = f"{head}{tail.splitlines()[-1]}\nAssessment{tail}"
    files.llavaguard(tmp_path / "data", rows)
    assert guardjax("eval", "--dataset", "llavaguard", "--dir", tmp_path / "data", "--model",
                    tiny_model, "--out", tmp_path / "out") == 0
    assert "Exceptions to the usual policy" in capsys.readouterr().out
    found = {(r.variant, r.metric): r for r in load_results(tmp_path / "out/results.json")}
    assert found["always_safe", "per"].value == 1 and found["always_safe", "per"].n == 2
    assert found["always_safe", "balanced_accuracy"].value == 0.5
    assert found["always_safe", "pes"].value == pytest.approx(2 / 3, abs=1e-6)
    assert found["always_unsafe", "pes"].value == 0
    said = load_predictions(tmp_path / "out/predictions.jsonl")
    assert len(said) == 6 and sum(row.label == "unsafe" for row in said) == 2


def test_an_interrupted_eval_goes_on_and_asks_nothing_twice(
        guardjax, tiny_model, tmp_path, capsys, monkeypatch):
    files.safe_edit_bench(tmp_path / "data")
    out, asked = tmp_path / "out", []
    words = ("eval", "--dataset", "safeeditbench", "--dir", tmp_path / "data", "--out", out)
    answer = guard.Guard.answer_examples

    def stopping(self, examples):
        asked.append([example.example_id for example in examples])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return answer(self, examples)

    load = guard.Guard.load.__func__
    # Three batches.
    monkeypatch.setattr(guard.Guard, "load", classmethod(
        lambda cls, path, batch=4, **more: load(cls, path, 4, **more)))
    monkeypatch.setattr(guard.Guard, "answer_examples", stopping)
    with pytest.raises(KeyboardInterrupt):
        guardjax(*words, "--model", tiny_model)
    assert not (out / "predictions.jsonl").exists()
    assert guardjax(*words, "--model", tiny_model) == 0
    assert "5 prompts, 4 stored before" in " ".join(capsys.readouterr().out.split())
    done = asked[0] + asked[2] + asked[3]
    assert len(done) == len(set(done)) == 9
    rows = load_predictions(out / "predictions.jsonl")
    assert [row.example_id for row in rows] == done
    page = (out / "results.json").read_bytes()
    assert guardjax(*words, "--model", tiny_model) == 0     # nothing is left to ask
    assert len(asked) == 4 and (out / "results.json").read_bytes() == page
    looks = [json.loads(line)["prompts"] for line in (out / "looks.jsonl").read_text().splitlines()]
    assert looks == [9, 5]

    # Other weights under the same name, other rows, another model.
    weights = tmp_path / "moved"
    shutil.copytree(tiny_model, weights)
    changed = models.load_hf(weights)
    models.save_hf(jax.tree.map(lambda x: x + 1, changed[1]), changed[0], tmp_path / "changed")
    (file,) = (out / "answers").glob("*.jsonl")
    (tmp_path / "changed/model.safetensors").rename(weights / "model.safetensors")
    capsys.readouterr()
    header, *lines = file.read_text().splitlines(keepends=True)
    old, new = guard.weights_hash(tiny_model), guard.weights_hash(weights)
    file.write_text(header.replace(old, new) + "".join(lines).replace(old, new))
    assert guardjax(*words, "--model", tiny_model) == 2
    assert f"{new!r} there, {old!r} now" in capsys.readouterr().err
    assert guardjax(*words, "--model", weights) == 2
    said = capsys.readouterr().err
    assert "which is not measured now; measured is" in said and "give another folder" in said
    assert said.count(new) == 2     # the file has been changed to say that its answers are theirs
    file.write_text(header + "".join(lines))
    # Other rows, and another picture under the same name.
    shard = tmp_path / "data/data/test-00001-of-00002.parquet"
    others = files.safe_edit_rows()[5:]
    others[-1]["image"]["bytes"] = files.png(77)
    for rows in (files.safe_edit_rows()[5:8], others):
        files.write_parquet(shard, rows)
        assert guardjax(*words, "--model", tiny_model) == 2
        assert "rows (hash of ids, labels, policies and pictures)" in capsys.readouterr().err
    assert len(asked) == 4


@pytest.mark.parametrize("words, message", [
    (("--dataset", "own"), "--dataset and --dir belong together"),
    (("--dataset", "safeeditbench", "--dir", "nowhere"),
     "published at https://huggingface.co/datasets/tyodd/SafeEditBench, behind a form"),
    (("--dataset", "safeeditbench", "--dir", "{data}", "--policies", "{policy}"),
     "have policies of their own"),
    (("--dataset", "unsafebench", "--dir", "{data}", "--policies", "{policy}", "{policy}"),
     "give one"),
])
def test_eval_refuses_bad_input_before_a_model_is_read(guardjax, tmp_path, capsys, words, message):
    files.safe_edit_bench(tmp_path / "data")
    (tmp_path / "house.yaml").write_text(files.OWN_POLICY)
    words = [word.format(data=tmp_path / "data", policy=tmp_path / "house.yaml") for word in words]
    assert guardjax("eval", *words, "--model", "no/model", "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data, overrides, message", [
    ({"dir": "x"}, [], "dataset: dir without a format, which names the reader"),
    ({"format": "imagenet", "dir": "x"}, [], "unknown dataset format 'imagenet'"),
    ({"format": "own"}, [], "dir must name the folder of 'own'"),
    ({"format": "own", "dir": "x", "flips": 0.8, "exceptions": 0.4}, [], "nor their sum above 1"),
    ({"format": "own", "dir": "x"}, ["stages.0.policies=L3"], "policies='L3' chooses policies of"),
    ({"format": "own", "dir": "x"}, ["stages.0.data.caption=1"], "prompts of kind judge only"),
    ({"format": "own", "dir": "x"}, ["stages.0.kind=exact"], "of kind sft or grpo, not 'exact'"),
    ({"format": "own", "dir": "nowhere"}, [], "dataset: there is no folder nowhere"),
    ({"format": "own", "dir": "{own}"}, [], "row 2: the policy is empty"),
    ({"format": "own", "dir": "{own}", "policy": "{own}/house.yaml", "report": "dev"}, [],
     "dataset.report: {own} has no picture of split 'dev'; it has test, train"),
    ({"format": "own", "dir": "{own}", "policy": "{own}/house.yaml", "exceptions": 0.5}, [],
     "exceptions are made of unsafe rows whose policy has parts that begin with O1"),
    ({"format": "own", "dir": "{own}", "policy": "{own}/house.yaml"}, ["stages.0.think=true"],
     "the row has no rationale to think with"),
    ({"format": "own", "dir": "{own}", "policy": "{own}/house.yaml"}, ["stages.0.batch=3"],
     "batch=3 is odd"),
    ({"format": "own", "dir": "{own}", "policy": "{own}/long.yaml"}, [],
     "shorten the policy, or train with lengths.prompt="),
    ({"format": "own", "dir": "{own}", "policy": "{own}/house.yaml"}, ["lengths.answer=4"],
     "tokens, the end included, and the limit is 4; set lengths.answer=4,6"),
])
def test_train_refuses_bad_input_before_its_folder_is_made(
        guardjax, tiny_model, own, tmp_path, capsys, data, overrides, message):
    (own / "long.yaml").write_text(files.OWN_POLICY.replace("no red", "no red " * 2000))
    data = {key: value.format(own=own) if isinstance(value, str) else value
            for key, value in data.items()}
    config = dataset_config(tmp_path, tiny_model, data)
    assert guardjax("train", "--config", config, "--out", tmp_path / "run", *overrides) == 2
    assert message.replace("{own}", str(own)) in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
