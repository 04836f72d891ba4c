"""Training and distillation: `data` holds images and cached latents, `trainer` the one loop (budget, EMA, resume, log);
`autoencoder`, `flow_matching`, `distillation` and `regression` are the objectives; `train` puts a run together."""
