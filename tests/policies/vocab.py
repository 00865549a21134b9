"""A small vocabulary and random pictures of it, shared by the policy tests."""

from __future__ import annotations

import random

from guardjax.policies import Attributes, Vocabulary

VOCABULARY = Vocabulary(
    categories={
        "weapons": ("knife", "sword", "bow"),
        "fire": ("bomb", "flame"),
        "alcohol": ("beer", "wine", "whisky"),
        "tobacco": ("cigarette", "pipe"),
        "drugs": ("pill", "syringe"),
        "gambling": ("slot", "die"),
        "gore": ("skull", "blood"),
        "insults": ("finger", "devil"),
        "emblems": ("vask", "torl", "nemb"),
        "animals": ("dog", "fox", "frog"),
        "food": ("apple", "bread", "egg"),
        "sweets": ("candy", "cake"),
        "toys": ("kite", "robot"),
        "music": ("drum", "violin"),
        "clothes": ("hat", "shoe"),
        "sports": ("football", "trophy"),
        "vehicles": ("car", "boat"),
    },
    harmful=("weapons", "fire", "alcohol", "tobacco", "drugs", "gambling", "gore", "insults",
             "emblems"),
    contexts={"place": ("city", "garden", "table", "stone", "space", "home"),
              "light": ("bright", "dark")},
)


def random_picture(rng: random.Random, most: int = 5) -> Attributes:
    objects = rng.choices(list(VOCABULARY.category_of), k=rng.randrange(most + 1))
    if objects and rng.random() < 0.3:
        objects.append(objects[0])
    context = {name: rng.choice(values) for name, values in VOCABULARY.contexts.items()}
    return Attributes.of(objects, VOCABULARY.category_of, context)
