"""Passes of large generators on a GPU with their small operations fused."""
