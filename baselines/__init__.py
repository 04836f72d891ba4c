"""Decoders without training, or trained by others: resampling, PCA, image codecs, the identity, and pretrained tokenizers.

One file each, one factory each (`harness.decoder.DecoderFactory`); `options` holds the checks they share.
"""
