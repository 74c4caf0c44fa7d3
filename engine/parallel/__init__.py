"""One session on several GPUs: a process each, of which the first leads and the others follow."""
