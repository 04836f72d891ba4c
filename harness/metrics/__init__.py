"""Quality metrics. Each file holds one: `pixel` (PSNR, SSIM), `lpips`, `inception` (features), `frechet` (rFID), `kid`.

`registry` names them and says which way is better; `suite` runs them on batches. All read the same uint8 images, so no metric
rounds or rescales for itself.
"""
