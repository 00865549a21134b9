"""Edited pairs of pictures, and captions that keep what a policy looks at, made by tools.

The tools stand behind two small protocols (`tools.py`): an assessor that looks at a picture, and an
editor that changes one. The world's own are exact and need no network (`world_tools.py`); real ones
speak OpenAI's protocol (`http_tools.py`). What a tool said is kept under a hash of all that it was
asked (`kept.py`), so that nothing is asked twice and a set can be checked afterwards.
"""
