"""`guardjax <verb>`: one file a verb; the only package that composes all others."""
