from guardjax.world import catalogue
from guardjax.world.language import caption, questions
from guardjax.world.scene import sample_scene


def test_caption_tells_the_scene_in_one_line():
    scene = sample_scene(4)
    text = caption(scene)
    assert "\n" not in text
    objects, context, end = text.split(".")
    assert tuple(objects.split(", ")) == scene.names
    assert context.strip() == f"{scene.place}, {scene.light}" and end == ""


def test_answers_are_true_and_yes_is_as_frequent_as_no():
    for seed in range(200):
        scene = sample_scene(seed)
        asked = questions(scene, seed)
        assert asked == questions(scene, seed)
        kinds = {catalogue.CATEGORY_OF[name] for name in scene.names}
        yes = 0
        for question, answer in asked:
            words = question.rstrip("?").split()
            if words[0] in ("is", "any"):
                truth = words[-1] in (scene.names if words[0] == "is" else kinds)
                assert answer == ("yes" if truth else "no")
                yes += truth
            elif words[:2] == ["how", "many"]:
                assert answer == str(len(scene.objects))
            elif words[0] == "what":
                assert words[-1] in scene.names and answer == catalogue.CATEGORY_OF[words[-1]]
            elif words[0] == "where":
                assert answer == scene.place
            else:
                assert answer == scene.light
        assert yes == 2
