"""Checks the losses, and what the trainer builds on them, against reference numbers: `python -m model.golden DIR`.

DIR holds pairs `NAME.safetensors` and `NAME.json` in the format that its own README.md describes: random inputs, and
the values and gradients an implementation must return. NAME says what is checked (simcse_unsup, simcse_sup, mcse,
kdmcse, dalr, diffcse_rtd, mcseo, sts_aggregation, schedule, trajectory; a suffix after `_` or `-` may follow); sizes,
case names, values and numbers of cases are free.

Files: `vectors` (reading), `measure` (tolerances and errors), `contrastive`, `kdmcse`, `dalr`, `object_phrase`,
`numbers` and `trajectory` (what is computed for each kind of case), `check` (puts them together), `report` (the table).
"""
