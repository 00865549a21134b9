"""The tables of experiments/scale/README.md are what its script prints of the kept results."""

import importlib.util
import pathlib

SCALE = pathlib.Path(__file__).parents[2] / "experiments" / "scale"


def script():
    spec = importlib.util.spec_from_file_location("aot_tables", SCALE / "aot_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_what_is_kept():
    module = script()
    kept = module.kept_results()
    assert kept.keys() == module.CASES.keys()
    page = (SCALE / "README.md").read_text()
    for table in (module.tables(kept), module.growth(kept)):
        assert table in page, "run `python experiments/scale/aot_tables.py` and paste its tables"
    for name, each in kept.items():
        assert tuple(each["words"]) == tuple(module.CASES[name]), name


def test_every_count_agrees_with_the_sizes():
    for name, each in script().kept_results().items():
        for program in each["plan"]["programs"]:
            if program["compiled"]:
                assert abs(program["excess"]) < 0.05, (name, program["name"])
