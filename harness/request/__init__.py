"""What is asked of a decoder: `requests` reads a row's name and options, `model_file` and `foreign` take models of others."""
