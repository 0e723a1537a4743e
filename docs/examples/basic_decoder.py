"""A decoder that takes a list of channels, as in most tutorials, registered without changes."""

import torch
from torch import nn

import zoo


class BasicDecoder(nn.Module):
    """Two steps up, from stride 32 to 8: 2x2 transposed convolution, concatenation, 3x3 convolution.

    Shapes: three maps (N, C_i, h_i, w_i), fine to coarse -> (N, out_channels, h_0, w_0).
    """

    def __init__(self, in_channels_list, out_channels):
        super().__init__()
        c3, c4, c5 = in_channels_list
        self.up4 = nn.ConvTranspose2d(c5, out_channels, kernel_size=2, stride=2)
        self.conv4 = nn.Conv2d(out_channels + c4, out_channels, kernel_size=3, padding=1)
        self.up3 = nn.ConvTranspose2d(out_channels, out_channels, kernel_size=2, stride=2)
        self.conv3 = nn.Conv2d(out_channels + c3, out_channels, kernel_size=3, padding=1)

    def forward(self, x3, x4, x5):
        x = torch.relu(self.conv4(torch.cat([zoo.plugin.resize_map(self.up4(x5), x4.shape[-2:]), x4], dim=1)))
        return torch.relu(self.conv3(torch.cat([zoo.plugin.resize_map(self.up3(x), x3.shape[-2:]), x3], dim=1)))


needs = zoo.Needs(strides=(8, 16, 32))
zoo.register_decoder("basic-decoder", zoo.from_channels(BasicDecoder, out_channels=256, needs=needs))
