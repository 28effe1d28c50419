"""Losses: pure functions, one per file. Tensors in, a scalar tensor out; no modules, no state."""
