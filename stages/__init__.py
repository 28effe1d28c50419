"""What is done: one folder a stage."""

import os

# Before torch is loaded: its threads would otherwise spin while they wait, and a busy machine then slows tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
