"""The timeline: the tree of ticks that a session has lived, and the way to any moment of it."""
