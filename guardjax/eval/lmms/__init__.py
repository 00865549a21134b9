"""guardjax in lmms-eval: as a model of any of its tasks, and data sets as tasks for any model.

    pip install 'guardjax[lmms]'
    GUARDJAX_DATA=data python -m lmms_eval --model guardjax --model_args pretrained=MODEL \\
        --tasks guardjax_safeeditbench,mmmu_val --include_path guardjax/eval/lmms --batch_size 16

`$GUARDJAX_DATA/safeeditbench` and so on are the folders that `guardjax data check` reads. Nothing
is imported here: lmms-eval brings torch, and the rest of the package needs neither.
"""
