"""compare: what several evaluated runs say of their recipes, and what they do not.

runs.py reads the runs and groups them into arms, checkpoints.py tells copies, resample.py draws sentence pairs anew,
claims.py draws seeds and decides, pages.py and plot.py show it, command.py is the command line.
"""
