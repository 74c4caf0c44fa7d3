"""Promises and the tests that hold them."""

import os

# Threads that wait by spinning take the core from each other on a busy machine; see playhead/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Tests that are about recordings name a folder of their own.
os.environ["PLAYHEAD_RECORDINGS"] = "off"
