"""Where a session starts: the format of scenes, those that ship, those made ready here, encoders."""
