"""Making worlds: collecting footage, training the autoencoder, the generator and the inverse-dynamics model."""
