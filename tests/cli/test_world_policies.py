"""Policies of a person's own must speak of what the world's pictures can show."""

import pytest

from guardjax.cli import compose
from guardjax.cli.world_policies import load_world_policies, named_policy
from guardjax.policies import PolicyError
from guardjax.train.config import ConfigError, resolve

HEAD = "schema: 1\nid: {}\nversion: '1'\ntitle: Mine\nrules:\n  - id: R1\n    {}\n"


def write(folder, rule, policy_id="mine"):
    file = folder / f"{policy_id}-{len(list(folder.iterdir()))}.yaml"
    file.write_text(HEAD.format(policy_id, rule))
    return file


def test_names_and_contexts_of_the_world_pass(tmp_path):
    files = [write(tmp_path, "when: {all: [axe, animals, {is: {place: garden}}]}"),
             write(tmp_path, "when: {other_than: [knife, toys]}", "other")]
    assert [policy.id for policy in load_world_policies(files)] == ["mine", "other"]


@pytest.mark.parametrize("rule, message", [
    ("when: knive", "R1: unknown name 'knive'. Did you mean 'knife'?"),
    ("when: knife\n    unless: {not: unicorn}", "R1: unknown name 'unicorn'"),
    ("when: {is: {weather: rain}}", "R1: unknown context 'weather'. Valid: light, place"),
    ("when: {is: {place: moon}}", "R1: unknown place 'moon'."),
    ("text: nothing frightening", "R1: is words only"),
])
def test_what_no_picture_can_show_is_named_and_not_called_safe(tmp_path, rule, message):
    file = write(tmp_path, rule)
    with pytest.raises(PolicyError) as caught:
        load_world_policies([file])
    assert str(caught.value).startswith(f"{file}: {message}")


def test_two_policies_of_one_id_are_refused(tmp_path):
    files = [write(tmp_path, "when: knife"), write(tmp_path, "when: dog")]
    with pytest.raises(PolicyError, match="mine-1.yaml: id: 'mine' is another file's id too"):
        load_world_policies(files)


def test_a_config_names_a_level_or_a_file(tmp_path):
    assert named_policy("L2").id == "ladder-L2"
    assert named_policy(str(write(tmp_path, "when: knife"))).id == "mine"
    with pytest.raises(ValueError, match="policies='L7': not 'varied', a ladder level .* or a"):
        named_policy("L7")
    with pytest.raises(PolicyError, match="nowhere.yaml"):
        named_policy("nowhere.yaml")


def test_an_edited_policy_file_is_another_run(tmp_path):
    file = write(tmp_path, "when: knife")
    config = {"name": "run", "base": "scratch",
              "stages": [{"kind": "sft", "steps": 1, "policies": str(file)}]}
    before = compose.claim_of(resolve(config))
    assert compose.claim_of(resolve(config)) == before
    file.write_text(file.read_text().replace("knife", "dog"))
    assert compose.claim_of(resolve(config)) != before
    file.write_text(file.read_text().replace("dog", "dragon"))
    with pytest.raises(ConfigError, match="stages.0.policies: .*unknown name 'dragon'"):
        compose.claim_of(resolve(config))
