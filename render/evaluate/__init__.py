"""Measuring worlds and training runs: `evaluate`, its pictures and plots."""
