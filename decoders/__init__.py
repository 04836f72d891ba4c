"""The decoders this project trains: a KL-VAE and diffusion decoders at one or several scales, in many steps or one a scale.

`autoencoder` gives the latents; a diffusion decoder is a `flow` (noise-to-image path of each scale), a `denoiser` (one network
for all scales) and a `schedule` (steps a scale), walked by the one loop in `sampling`. `presets` is data, `checkpoint` reads
and writes weights, `models` binds all of it to the harness's contract. `training` holds the trainer; nothing above imports it.
"""
