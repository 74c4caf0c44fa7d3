"""The bridge: other programs watch and play sessions over ZeroMQ. See docs/protocol.md."""
