"""Public benchmarks, and a person's own pictures, from local folders.

A `Schema` says what files look like and what labels and policies mean (one file a benchmark), and
`DatasetReader` reads any of them; `registry.py` has them by name. Nothing is imported here: the
names alone (`names.py`) cost nothing.
"""
