"""Latent diffusion: autoencoder, denoiser, objective, sampler, bundles."""
