"""The experiment: does MCSEO gain over MCSE, and how does the gain depend on noise and on the quality of its pairs?

dvc.yaml is the matrix and params.yaml what it runs; docs/ablation.md says how to run it, docs/results.md what it shows.
matrix.py reads params.yaml and starts stages, mine.py makes a dataset (gold.py, corrupt.py, tables.py), cell.py trains
and scores one, table.py draws the conclusions (gains.py, pages.py, plots.py).
"""
