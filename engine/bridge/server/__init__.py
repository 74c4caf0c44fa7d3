"""The server's end: sessions that clients play, who controls them, and what is lent to whom."""
