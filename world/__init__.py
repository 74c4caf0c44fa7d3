"""The model: generator, attention, KV cache, sampler, noise, LightTAE, checkpoints, evaluation."""
