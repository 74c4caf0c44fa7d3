"""Measuring speed: play, batches, recording, the bridge."""
