"""Inference engines: what each needs, how it is started, what it says about itself."""
