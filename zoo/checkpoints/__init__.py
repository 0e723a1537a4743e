"""Read and write weights and models: state dicts, saved models, and repositories of the Hugging Face hub."""
