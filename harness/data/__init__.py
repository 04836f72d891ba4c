"""Datasets: from files to exact uint8 images.

`registry` opens a dataset by name; `dataset` draws stratified subsets and serves examples in a fixed order, decoded ahead;
`types` holds what passes between them; `images` decodes and preprocesses one picture; `sources` reads folders and tars;
`photos`, `text`, `imagenette`, `imagenet` and `folder` are the datasets. Nothing here
needs torch (Imagenette's downloader excepted).
"""
