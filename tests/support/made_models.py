"""Models whose norms do something, and ONNX Runtime as another program would use it."""

import onnxruntime
import torch
from torch import nn

import zoo


def built(encoder, decoder, **options):
    """Return a model of three classes whose norms do something, so that an error means something."""
    model = zoo.build(encoder, decoder, **{"classes": 3} | options)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def by_onnxruntime(path):
    """Return a function that runs a file: images in, logits out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(path, options)
    return lambda given: torch.from_numpy(session.run(["logits"], {"image": given.numpy()})[0])
