"""Passes of large generators and decodes of tiny autoencoders on a GPU, with their small operations fused."""
