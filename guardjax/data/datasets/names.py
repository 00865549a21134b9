"""The names of the readers, without the readers: what a command line offers before it reads."""

FORMATS = ("safeeditbench", "llavaguard", "unsafebench", "policyshiftbench", "vlguard",
           "hateful_memes", "mami", "pridemm", "mm_safetybench", "figstep", "own")
