"""Weights that the stages can use but that do not ship: what there is, and how it gets here, whole and checked."""
