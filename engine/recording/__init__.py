"""Recordings: what was played, kept in one SQLite file so exactly that it replays bit for bit."""
