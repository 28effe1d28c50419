"""The demo world: rendered scenes whose truth is known, and the recipes of the small checkpoints that run on it."""
