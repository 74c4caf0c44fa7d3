"""What keeps a session alive: session, clock, loop, statistics, rollout, doctor."""
