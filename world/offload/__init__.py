"""Worlds larger than a device's memory: blocks lie in main memory or on the disk meanwhile."""
