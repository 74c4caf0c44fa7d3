"""What both ends of the bridge share: the messages, the keys, the encodings of frames."""
