"""Pair any image encoder with any segmentation decoder in one call, and measure which pairing to pick.

The public face. Names are imported on first use, so that `import zoo` and what lists or negotiates stay free of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.api import build as build
    from zoo.api import channels as channels
    from zoo.api import explain as explain
    from zoo.api import negotiate as negotiate
    from zoo.benchmark import BenchConfig as BenchConfig
    from zoo.benchmark import bench as bench
    from zoo.benchmark.matrix import CompatibilityMatrix as CompatibilityMatrix
    from zoo.benchmark.matrix import matrix as matrix
    from zoo.checkpoints.hub import hub_file as hub_file
    from zoo.checkpoints.load_weights import load_weights as load_weights
    from zoo.checkpoints.loading import load as load
    from zoo.checkpoints.matching import MatchedWeights as MatchedWeights
    from zoo.checkpoints.matching import WeightsReport as WeightsReport
    from zoo.checkpoints.matching import load_encoder_weights as load_encoder_weights
    from zoo.checkpoints.matching import match_weights as match_weights
    from zoo.checkpoints.saving import save as save
    from zoo.checkpoints.sharing import push_to_hub as push_to_hub
    from zoo.checkpoints.state_dicts import read_state_dict as read_state_dict
    from zoo.checkpoints.takeover import from_smp as from_smp
    from zoo.data.segmentation_data import SegmentationData as SegmentationData
    from zoo.data.sources import open_data as open_data
    from zoo.errors import AmbiguousIdError as AmbiguousIdError
    from zoo.errors import ConfigError as ConfigError
    from zoo.errors import DataError as DataError
    from zoo.errors import ExportError as ExportError
    from zoo.errors import InputError as InputError
    from zoo.errors import NegotiationError as NegotiationError
    from zoo.errors import OptionError as OptionError
    from zoo.errors import PluginError as PluginError
    from zoo.errors import RegistrationError as RegistrationError
    from zoo.errors import StoreError as StoreError
    from zoo.errors import UnknownIdError as UnknownIdError
    from zoo.errors import WeightsError as WeightsError
    from zoo.errors import ZooError as ZooError
    from zoo.inference.deployment import Deployed as Deployed
    from zoo.inference.deployment import deploy as deploy
    from zoo.inference.exporting import ExportReport as ExportReport
    from zoo.inference.exporting import export as export
    from zoo.inference.prediction.files import PredictedFiles as PredictedFiles
    from zoo.inference.prediction.files import predict_files as predict_files
    from zoo.inference.prediction.prediction import Prediction as Prediction
    from zoo.inference.prediction.predictor import Predictor as Predictor
    from zoo.model.layers.checkpointing import checkpointed as checkpointed
    from zoo.model.layers.resizing import padded as padded
    from zoo.model.layers.resizing import resized as resized
    from zoo.model.layers.upsampled_conv import UpsampledConv2d as UpsampledConv2d
    from zoo.model.model import SegmentationModel as SegmentationModel
    from zoo.model.probing.channel_list import from_channels as from_channels
    from zoo.model.probing.pruning import pruned as pruned
    from zoo.model.probing.pruning import unused_parameters as unused_parameters
    from zoo.pairing.pairing import Pairing as Pairing
    from zoo.pairing.plan import Plan as Plan
    from zoo.registry.hookspecs import API_VERSION as API_VERSION
    from zoo.registry.hookspecs import hookimpl as hookimpl
    from zoo.registry.image_sizes import ImageSizes as ImageSizes
    from zoo.registry.licenses import Licences as Licences
    from zoo.registry.pyramid import FeatureMap as FeatureMap
    from zoo.registry.pyramid import Needs as Needs
    from zoo.registry.pyramid import Pyramid as Pyramid
    from zoo.registry.registration import register_decoder as register_decoder
    from zoo.registry.registration import register_encoder as register_encoder
    from zoo.registry.registry import list_decoders as list_decoders
    from zoo.registry.registry import list_encoders as list_encoders
    from zoo.registry.specs import DecoderSpec as DecoderSpec
    from zoo.registry.specs import EncoderSpec as EncoderSpec
    from zoo.registry.specs import Option as Option
    from zoo.registry.specs import Preprocessing as Preprocessing
    from zoo.training.result import TrainResult as TrainResult
    from zoo.training.training import train as train

    __version__: str

_ERRORS = (
    "AmbiguousIdError ConfigError DataError ExportError InputError NegotiationError OptionError PluginError RegistrationError "
    "StoreError UnknownIdError WeightsError ZooError"
)
_HOMES = {
    "zoo.api": "build channels explain negotiate",
    "zoo.benchmark": "BenchConfig bench",
    "zoo.model.probing.channel_list": "from_channels",
    "zoo.model.layers.checkpointing": "checkpointed",
    "zoo.benchmark.matrix": "CompatibilityMatrix matrix",
    "zoo.data.segmentation_data": "SegmentationData",
    "zoo.data.sources": "open_data",
    "zoo.inference.deployment": "Deployed deploy",
    "zoo.errors": _ERRORS,
    "zoo.inference.exporting": "ExportReport export",
    "zoo.registry.hookspecs": "API_VERSION hookimpl",
    "zoo.checkpoints.hub": "hub_file",
    "zoo.registry.licenses": "Licences",
    "zoo.checkpoints.loading": "load",
    "zoo.checkpoints.matching": "MatchedWeights WeightsReport load_encoder_weights match_weights",
    "zoo.model.model": "SegmentationModel",
    "zoo.pairing.plan": "Plan",
    "zoo.pairing.pairing": "Pairing",
    "zoo.registry.pyramid": "FeatureMap Needs Pyramid",
    "zoo.inference.prediction.files": "PredictedFiles predict_files",
    "zoo.inference.prediction.prediction": "Prediction",
    "zoo.inference.prediction.predictor": "Predictor",
    "zoo.model.probing.pruning": "pruned unused_parameters",
    "zoo.registry.registration": "register_decoder register_encoder",
    "zoo.registry.registry": "list_decoders list_encoders",
    "zoo.model.layers.resizing": "padded resized",
    "zoo.checkpoints.saving": "save",
    "zoo.checkpoints.sharing": "push_to_hub",
    "zoo.registry.image_sizes": "ImageSizes",
    "zoo.registry.specs": "DecoderSpec EncoderSpec Option Preprocessing",
    "zoo.checkpoints.state_dicts": "read_state_dict",
    "zoo.training.result": "TrainResult",
    "zoo.training.training": "train",
    "zoo.model.layers.upsampled_conv": "UpsampledConv2d",
    "zoo.checkpoints.load_weights": "load_weights",
    "zoo.checkpoints.takeover": "from_smp",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [*sorted(_HOME_OF), "__version__"]


if not TYPE_CHECKING:  # a type checker reads the imports above, and so sees a name that is none

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("segmentation-zoo")
        if name not in _HOME_OF:
            raise AttributeError(f"module 'zoo' has no attribute {name!r}; it has: {', '.join(__all__)}")
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)
