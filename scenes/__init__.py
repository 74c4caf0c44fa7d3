"""Where a session starts: the scene format and the catalogue."""
