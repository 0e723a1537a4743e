"""A decoder as a tutorial writes it, taken over untouched: it knows a list of channels, and nothing of zoo."""

import torch
from torch import nn

import zoo


class BasicDecoder(nn.Module):
    """Two steps up, from stride 32 to 8: 2x2 transposed convolution, concatenation, 3x3 convolution."""

    def __init__(self, in_channels_list, out_channels):
        super().__init__()
        *_, c4, c5, c6 = in_channels_list
        self.up5 = nn.ConvTranspose2d(c6, out_channels, kernel_size=2, stride=2)
        self.conv5 = nn.Conv2d(out_channels + c5, out_channels, kernel_size=3, padding=1)
        self.up4 = nn.ConvTranspose2d(out_channels, out_channels, kernel_size=2, stride=2)
        self.conv4 = nn.Conv2d(out_channels + c4, out_channels, kernel_size=3, padding=1)

    def forward(self, x1, x2, x3, x4, x5, x6):
        x = torch.relu(self.conv5(torch.cat([self.up5(x6), x5], dim=1)))
        return torch.relu(self.conv4(torch.cat([self.up4(x), x4], dim=1)))


zoo.register_decoder("basic-decoder", zoo.from_channels(BasicDecoder, out_channels=256))
