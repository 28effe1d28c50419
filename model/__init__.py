"""The lean trainer: sentence encoders learned from text, image-caption and object-phrase pairs.

Importable alone. What is trained: `recipes` and `settings`, `losses/` (pure functions), `terms` (what of a batch goes
into them), `encoder` (text to vectors), `heads`, `teachers`. On what, in which order: `data`, `features`, `streams`,
`tokens`, `batches`, `ahead`. How: `network` and `unpadded` (the forward pass), `gradcache`, `distributed`, `optimizer`,
`update` (a step), `loop`, `checkpoint`, `dev`, `log`, `trainer` (all of it in one call). What comes of it: `export`
(the folder users load), `sts` (semantic textual similarity), `geometry` (alignment, uniformity).
`python -m model.golden DIR` checks the losses and loops against reference numbers.
"""
