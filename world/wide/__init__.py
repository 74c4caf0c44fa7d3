"""Many sessions of a world in passes of one width."""
