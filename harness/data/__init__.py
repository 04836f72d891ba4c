"""Datasets: from files to exact uint8 images.

`registry` opens a dataset by name; `dataset` serves examples in a fixed order; `types` holds what passes between them; `images`
decodes and preprocesses one picture; `sources` reads folders and tars; `subset` draws stratified samples; `photos`,
`imagenette`, `imagenet` and `folder` are the datasets. Nothing here needs torch (Imagenette's downloader excepted).
"""
