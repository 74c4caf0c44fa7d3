"""Making worlds: collecting footage, training autoencoder, generator and inverse-dynamics model."""
