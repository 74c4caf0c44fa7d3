"""One session on several devices: the tokens of a pass, and the cache, in a share for each rank."""
