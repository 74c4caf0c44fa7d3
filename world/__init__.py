"""The model: generator, KV cache, sampler, LightTAE, checkpoints and training."""
