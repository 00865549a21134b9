"""The names of the readers, without the readers: what a command line offers before it reads."""

# Pictures that people judged: what a guard is trained and measured on.
FORMATS = ("safeeditbench", "llavaguard", "unsafebench", "policyshiftbench", "vlguard",
           "hateful_memes", "mami", "pridemm", "mm_safetybench", "figstep", "own")
# Pictures with words in the place of a verdict: SFT learns from them, and nothing is measured.
CAPTIONS = "captions"
TRAINED_ON = (*FORMATS, CAPTIONS)
