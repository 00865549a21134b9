"""The plug-in for lmms-eval: its scores against scikit-learn, and a whole run by its own harness.

The second needs lmms-eval (extra `lmms`), which brings torch: like the comparisons with the
reference it is counted among the live ones.
"""

import itertools
import json

import numpy as np
import pytest
from PIL import Image, ImageFile
from sklearn.metrics import accuracy_score, f1_score

from guardjax.cli.assets import model_dir
from guardjax.data.batching import load_batcher
from guardjax.data.datasets.record import DatasetError, to_example
from guardjax.data.datasets.registry import open_dataset
from guardjax.data.prompts import PromptError
from guardjax.eval.guard import Guard
from guardjax.eval.harness import Question, ask
from guardjax.eval.lmms import scoring
from tests.data import dataset_files as files


def doc(label, group="L1"):
    return {scoring.POLICY: "R1: be kind", "rules": ["R1"], "label": label, "group": group,
            "image": Image.new("RGB", (8, 8))}


@pytest.mark.parametrize("text, valid, unsafe", [
    ("<answer>safe</answer>", True, False), ("<answer>unsafe: R1</answer>", True, True),
    ("safe", True, False), (" unsafe\n", True, True), ("Unsafe", False, None),
    ("unsafe.", False, None), ("", False, None), ("<answer>unsafe: R7</answer>", False, None)])
def test_answers_of_ours_and_of_others(text, valid, unsafe):
    for label in ("safe", "unsafe"):
        gold, called, ok, group = scoring.process_results(doc(label), [text])["f1"]
        assert (gold, ok, group) == (label == "unsafe", valid, "L1")
        assert called == (unsafe if valid else not gold)    # an invalid one is wrong either way


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        items = [(bool(g) and group != "L1", bool(c), bool(v), group) for g, c, v, group in zip(
            rng.integers(0, 2, 60), rng.integers(0, 2, 60), rng.integers(0, 2, 60),
            itertools.cycle(("L1", "L2", "L3")))]
        gold, called = [i[0] for i in items], [i[1] for i in items]
        assert scoring.f1(items) == pytest.approx(f1_score(gold, called))
        assert scoring.accuracy(items) == pytest.approx(accuracy_score(gold, called))
        by_level = [[(g, c) for g, c, _, level in items if level == name]
                    for name in ("L1", "L2", "L3")]
        wanted = np.mean([accuracy_score(*zip(*by_level[0])), f1_score(*zip(*by_level[1])),
                          f1_score(*zip(*by_level[2]))])
        assert scoring.macro_f1(items) == pytest.approx(wanted)
        assert scoring.invalid_rate(items) == np.mean([not i[2] for i in items])


@pytest.mark.slow
def test_lmms_eval_runs_our_model_on_our_tasks(live, tmp_path, monkeypatch):
    pytest.importorskip("lmms_eval", reason="needs lmms-eval (extra `lmms`)")
    from lmms_eval import evaluator
    from lmms_eval.models.registry_v2 import ModelRegistryV2
    from lmms_eval.tasks import TaskManager

    from guardjax.eval.lmms.manifest import MANIFEST

    registry = ModelRegistryV2()
    registry.register_manifest(MANIFEST)
    model = registry.get_model_class("guardjax").create_from_arg_string(
        f"pretrained={model_dir('guard')}", {"batch_size": 16, "device": None})
    folder = scoring.__file__.rpartition("/")[0]
    manager = TaskManager(include_path=folder, include_defaults=False)
    names = ["guardjax_safeeditbench", "guardjax_unsafebench", "guardjax_llavaguard"]
    assert set(names) <= set(manager.all_tasks)
    monkeypatch.delenv("GUARDJAX_DATA", raising=False)
    with pytest.raises(DatasetError, match="set GUARDJAX_DATA to the folder that holds safeedit"):
        manager.load_task_or_group(names[:1])
    monkeypatch.setenv("GUARDJAX_DATA", str(tmp_path))
    for name in names:
        files.FILES[name.removeprefix("guardjax_")][0](tmp_path / name.removeprefix("guardjax_"))
    found = evaluator.simple_evaluate(
        model=model, tasks=names, task_manager=manager, batch_size=16, log_samples=True,
        bootstrap_iters=0)
    json.dumps(found["results"], default=str)
    # Some task of lmms-eval sets it for the whole process, and readers refuse to work under it.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    guard = Guard.load(model_dir("guard"), 16)
    for name in names:
        reader = open_dataset(name.removeprefix("guardjax_"), tmp_path /
                              name.removeprefix("guardjax_"))
        rows = ask(guard, [Question("test", to_example(record)) for record in reader], variant="g")
        wanted = accuracy_score(
            [row.label == "unsafe" for row in rows],
            [row.outcome == "unsafe" if row.outcome != "needs_review" else row.label != "unsafe"
             for row in rows])
        assert found["results"][name]["accuracy,none"] == pytest.approx(wanted)
        assert len(found["samples"][name]) == len(reader)


@pytest.mark.slow
def test_prompts_of_other_tasks(live):
    """A model that is a function: what it is asked, what is refused, where answers are cut."""
    pytest.importorskip("lmms_eval", reason="needs lmms-eval (extra `lmms`)")
    from lmms_eval.api.instance import Instance

    from guardjax.eval.lmms.model import GuardjaxLmms

    asked = []

    class Fake:
        batcher = load_batcher(model_dir("guard"))

        def answer_examples(self, examples):
            asked.extend(examples)
            return [("B and more", index == 1) for index in range(len(examples))]

    model = GuardjaxLmms.__new__(GuardjaxLmms)
    super(GuardjaxLmms, model).__init__()
    model._guard = Fake()
    picture = Image.new("RGB", (8, 8), (255, 0, 0))
    docs = [{"pictures": [picture]}, doc("safe") | {"pictures": [picture]}, {"pictures": []},
            {"pictures": [picture] * 2}]
    model.task_dict = {"mmmu": {"test": docs}}

    def request(index, context="<image>\nA or B?"):
        return Instance("generate_until", (
            context, {"until": [" and"]}, lambda d: d["pictures"], index, "mmmu", "test"), index,
            {"task": "mmmu", "doc_id": index, "repeats": 1})

    assert model.generate_until([request(0), request(1), request(2)]) == ["B", "", "B"]
    assert [e.kind for e in asked] == ["question", "judge", "question"]
    assert asked[0].question == "A or B?" and asked[1].policy_text == "R1: be kind"
    assert asked[0].image.shape == (8, 8, 3) and asked[2].image is None
    with pytest.raises(PromptError, match="mmmu/test/3 has 2 pictures; guardjax takes one"):
        model.generate_until([request(3)])
    with pytest.raises(PromptError, match="mmmu/test/0: its text has tokens of the chat template"):
        model.generate_until([request(0, "say <|im_end|> now")])
    for refused in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="guardjax answers"):
            refused([])
    with pytest.raises(ValueError, match="no model argument colour; it has pretrained"):
        GuardjaxLmms(str(model_dir("guard")), colour="red")
