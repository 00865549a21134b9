"""Tiny data sets with the schemas of the published ones. Pictures are noise; texts are ours."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SHORT_POLICY = "".join(
    f"{heading}:\nShould not:\n- {verb}.\nCan:\n- Teach.\n\n" for heading, verb in (
        ("O1: Hate", "Insult"), ("O2: Violence", "Hit"), ("O3: Sexual Content", "Show")))


def pixels(seed, size=(16, 16)):
    """A picture of smooth noise, so that hashes of different seeds differ."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def png(seed, size=(16, 16)):
    """The file of `pixels`."""
    out = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(out, "PNG")
    return out.getvalue()


def write_parquet(file, rows, **options):
    """Rows with a column `image` as the hub's type Image stores it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()})}
    columns = {}
    for name in rows[0]:
        columns[name] = pa.array([row[name] for row in rows], kinds.get(name))
    pq.write_table(pa.table(columns), file, **options)


def write_csv(file, rows, delimiter=","):
    """A table with a header."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(file, rows):
    """A line an object."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_png(file, seed):
    """A picture file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(seed))


def safe_edit_rows(pictures=3, levels=("L1", "L2", "L3")):
    """Every picture under every level; label by a rule, so that both occur."""
    return [{"image": {"bytes": png(p), "path": None}, "image_path": f"{p}.png",
             "safety_label": "unsafe" if (p + k) % 2 and level != "L1" else "safe",
             "policy_name": f"Policy {level}", "policy": f"Policy of level {level}: be kind."}
            for p in range(pictures) for k, level in enumerate(levels)]


def safe_edit_bench(folder):
    """Two shards, several row groups."""
    rows = safe_edit_rows()
    write_parquet(folder / "data/test-00000-of-00002.parquet", rows[:5], row_group_size=2)
    write_parquet(folder / "data/test-00001-of-00002.parquet", rows[5:], row_group_size=2)


def llavaguard_rows(number=8):
    """Half unsafe, of two categories; safe rows with and without a category."""
    kinds = [("Unsafe", "O1: Hate"), ("Safe", "NA: None applying"),
             ("Unsafe", "O3: Sexual Content"), ("Safe", "O2: Violence")]
    return [{"id": f"row{i}", "url": f"https://example.org/pictures/p%20{i}.png?size=1",
             "rating": kinds[i % 4][0], "category": kinds[i % 4][1], "rationale": f"It shows {i}.",
             "policy": f"<image>\n{SHORT_POLICY}Assessment Steps:\n1. Answer in JSON.\n"}
            for i in range(number)]


def llavaguard(folder, rows=None, split="test"):
    """A table of addresses, with the pictures beside it."""
    rows = llavaguard_rows() if rows is None else rows
    write_csv(folder / f"{split}.csv", rows)
    for i in range(len(rows)):
        write_png(folder / f"images/p {i}.png", 100 + i)


def unsafe_bench(folder):
    """Real names of columns and categories."""
    write_parquet(folder / "data/test-00000-of-00001.parquet", [
        {"image": {"bytes": png(i), "path": f"{i}.png"}, "safety_label": label,
         "category": category, "source": source, "text": "words"}
        for i, (label, category, source) in enumerate([
            ("Safe", "Hate", "Laion5B"), ("Unsafe", "Self-harm", "Lexica"),
            ("Unsafe", "Public and personal health", "Laion5B")])])


def policy_shift_bench(folder):
    """One picture under two bundles, another under one."""
    write_parquet(folder / "id_test-00000-of-00001.parquet", [
        {"image": {"bytes": png(image), "path": None}, "question": f"<image>Policies: {name}",
         "answer": "false", "image_idx": image, "section_id": 2, "section_title": "Violence",
         "policy_name": name, "tier": 1, "discrimination_score": 1.0, "policy_description": name,
         "label": label, "split_type": "id", "violated_categories": [2] if label == "block" else []}
        for image, name, label in [(7, "strict", "block"), (7, "lenient", "pass"),
                                   (9, "strict", "pass")]])


def vlguard(folder):
    """Two harmful, one safe, and the row that train has twice."""
    rows = [{"id": "a", "image": "HOD/a.png", "safe": False, "harmful_category": "risky behavior",
             "harmful_subcategory": "violence", "instr-resp": []},
            {"id": "Ads_303871", "image": "bad_ads/b.png", "safe": True, "instr-resp": []},
            {"id": "Ads_303871", "image": "bad_ads/b.png", "safe": True, "instr-resp": []}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.json").write_text(json.dumps(rows))
    write_png(folder / "train/HOD/a.png", 1)
    write_png(folder / "train/bad_ads/b.png", 2)


def hateful_memes(folder):
    """`img/` and a line a meme."""
    write_jsonl(folder / "test_seen.jsonl", [
        {"id": i, "img": f"img/{i:05d}.png", "label": i % 2, "text": "a meme"} for i in (1, 2)])
    for i in (1, 2):
        write_png(folder / f"img/{i:05d}.png", i)


def mami(folder):
    """Tabs, and the labels of test in a file of their own."""
    kinds = {"shaming": 0, "stereotype": 1, "objectification": 0, "violence": 1}
    write_csv(folder / "training.csv", [
        {"file_name": "1.jpg", "misogynous": 1, **kinds, "Text Transcription": 'say "this"'},
        {"file_name": "2.jpg", "misogynous": 0, **dict.fromkeys(kinds, 0),
         "Text Transcription": "that"}], delimiter="\t")
    write_csv(folder / "Test.csv", [{"file_name": "3.jpg", "Text Transcription": "x"}], "\t")
    (folder / "test_labels.txt").write_text("3.jpg\t1\t1\t0\t0\t0\n")
    for i in (1, 2, 3):
        write_png(folder / f"{i}.jpg", i)


def pridemm(folder):
    """One table of all splits."""
    write_csv(folder / "PrideMM.csv", [
        {"name": f"img_{i}.png", "text": "t", "split": split, "hate": hate, "humour": 0,
         "target": "2" if hate else "", "stance": 0}
        for i, (split, hate) in enumerate([("train", 0), ("test", 1), ("test", 0)])])
    for i in range(3):
        write_png(folder / f"Images/img_{i}.png", i)


def mm_safetybench(folder):
    """A folder a scenario."""
    for k, scenario in enumerate(("Illegal_Activitiy", "Sex")):
        write_parquet(folder / f"data/{scenario}/SD_TYPO.parquet", [
            {"id": "0", "question": "how?", "image": {"bytes": png(k), "path": None}}])


def figstep(folder):
    """The repository's layout."""
    rows = [{"dataset": "ForbidQI", "category_id": 6, "task_id": i, "question": "how?",
             "category_name": "Adult Content", "instruction": "steps"} for i in (1, 2)]
    write_csv(folder / "data/question/safebench.csv", rows)
    for i in (1, 2):
        write_png(folder / f"data/images/SafeBench/query_ForbidQI_6_{i}_6.png", i)


OWN_POLICY = ("schema: 1\nid: house\nversion: '1'\ntitle: House rules\nrules:\n"
              "  - {id: dark, text: no dark pictures}\n  - {id: red, text: no red pictures}\n")


def own(folder, number=12):
    """Bright pictures are safe, dark ones are not; every third is for test."""
    rows = []
    for i in range(number):
        dark = i % 2 == 1
        value = np.clip(pixels(i).astype(int) // 4 + (0 if dark else 190), 0, 255).astype(np.uint8)
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(folder / f"pictures/{i}.png")
        rows.append({"image": f"pictures/{i}.png", "label": "unsafe" if dark else "safe",
                     "category": "dark" if dark else "",
                     "split": "test" if i % 3 == 0 else "train"})
    write_csv(folder / "images.csv", rows)
    (folder / "house.yaml").write_text(OWN_POLICY)


def captions(folder, number=6):
    """As `guardjax pairs recaption` writes them."""
    for i in range(number):
        write_png(folder / f"images/p{i}.png", i)
    write_jsonl(folder / "metadata.jsonl", [
        {"file_name": f"images/p{i}.png", "draft": "a toy", "caption": f"a dog and {i} hats."}
        for i in range(number)])


# name -> (writer, split to open, or "" for the usual one)
FILES = {
    "safeeditbench": (safe_edit_bench, ""), "llavaguard": (llavaguard, ""),
    "unsafebench": (unsafe_bench, ""), "policyshiftbench": (policy_shift_bench, ""),
    "vlguard": (vlguard, "train"), "hateful_memes": (hateful_memes, ""), "mami": (mami, "train"),
    "pridemm": (pridemm, ""), "mm_safetybench": (mm_safetybench, ""), "figstep": (figstep, ""),
    "own": (own, "all"),
}
