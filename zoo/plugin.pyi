# The API for authors of plugins, in addition to `zoo`. Each name is listed only here; zoo/plugin.py reads this file.
from zoo.checkpoints.hub import hub_file as hub_file
from zoo.checkpoints.matching import MatchedWeights as MatchedWeights
from zoo.checkpoints.matching import load_encoder_weights as load_encoder_weights
from zoo.checkpoints.matching import match_weights as match_weights
from zoo.model.layers.checkpointing import run_checkpointed as run_checkpointed
from zoo.model.layers.resizing import pad_map as pad_map
from zoo.model.layers.resizing import resize_map as resize_map
from zoo.model.layers.upsampled_conv import UpsampledConv2d as UpsampledConv2d
from zoo.model.probing.pruning import prune_unused as prune_unused
from zoo.model.probing.pruning import unused_parameters as unused_parameters
from zoo.registry.hookspecs import API_VERSION as API_VERSION
from zoo.registry.hookspecs import hookimpl as hookimpl
from zoo.registry.image_sizes import ImageSizes as ImageSizes
from zoo.registry.licenses import Licenses as Licenses
from zoo.registry.pyramid import FeatureMap as FeatureMap
from zoo.registry.pyramid import Pyramid as Pyramid
from zoo.registry.specs import DecoderSpec as DecoderSpec
from zoo.registry.specs import EncoderSpec as EncoderSpec
from zoo.registry.specs import Option as Option

__all__: list[str]
