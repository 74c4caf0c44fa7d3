"""Session hosts on many machines, placed and restarted by Ray (the extra `fleet`)."""
