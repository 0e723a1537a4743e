"""Match an encoder with a decoder: from ids and options to a plan. Torch-free."""
