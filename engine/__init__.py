"""What keeps a session alive: session, clock and loop."""
