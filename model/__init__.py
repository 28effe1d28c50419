"""The lean trainer: sentence encoders learned from text, image-caption and object-phrase pairs.

Importable alone. Files: `encoder` (text to vectors), `heads`, `losses/` (pure functions), `recipes` (what is
trained), `data` and `batches` (what it is trained on, in which order), `network` (encoder, heads and terms),
`trainer` (the loop), `export` (the folder users load), `sts` (semantic textual similarity).
"""
