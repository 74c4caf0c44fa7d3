"""Playing in a window: what is drawn, what the keys do, and the loop's ticks on the display."""
