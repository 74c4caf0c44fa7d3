"""Playing in a browser: one WebSocket a player, over the sessions of a server of the bridge."""
