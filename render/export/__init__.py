"""What was played, kept: films, pictures, footage and data sets."""
