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
    from zoo.channel_list import from_channels as from_channels
    from zoo.checkpointing import checkpointed as checkpointed
    from zoo.compatibility import CompatibilityMatrix as CompatibilityMatrix
    from zoo.compatibility import matrix as matrix
    from zoo.data.segmentation_data import SegmentationData as SegmentationData
    from zoo.data.sources import open_data as open_data
    from zoo.deployment import Deployed as Deployed
    from zoo.deployment import deploy as deploy
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
    from zoo.exporting import ExportReport as ExportReport
    from zoo.exporting import export as export
    from zoo.hookspecs import API_VERSION as API_VERSION
    from zoo.hookspecs import hookimpl as hookimpl
    from zoo.hub import hub_file as hub_file
    from zoo.licences import Licences as Licences
    from zoo.loading import load as load
    from zoo.matching import MatchedWeights as MatchedWeights
    from zoo.matching import WeightsReport as WeightsReport
    from zoo.matching import load_encoder_weights as load_encoder_weights
    from zoo.matching import match_weights as match_weights
    from zoo.model import SegmentationModel as SegmentationModel
    from zoo.pairing import Pairing as Pairing
    from zoo.plan import Plan as Plan
    from zoo.prediction.files import PredictedFiles as PredictedFiles
    from zoo.prediction.files import predict_files as predict_files
    from zoo.prediction.prediction import Prediction as Prediction
    from zoo.prediction.predictor import Predictor as Predictor
    from zoo.pruning import pruned as pruned
    from zoo.pruning import unused_parameters as unused_parameters
    from zoo.pyramid import FeatureMap as FeatureMap
    from zoo.pyramid import Needs as Needs
    from zoo.pyramid import Pyramid as Pyramid
    from zoo.registration import register_decoder as register_decoder
    from zoo.registration import register_encoder as register_encoder
    from zoo.registry import list_decoders as list_decoders
    from zoo.registry import list_encoders as list_encoders
    from zoo.resizing import padded as padded
    from zoo.resizing import resized as resized
    from zoo.saving import save as save
    from zoo.sharing import push_to_hub as push_to_hub
    from zoo.sizes import ImageSizes as ImageSizes
    from zoo.specs import DecoderSpec as DecoderSpec
    from zoo.specs import EncoderSpec as EncoderSpec
    from zoo.specs import Option as Option
    from zoo.specs import Preprocessing as Preprocessing
    from zoo.state_dicts import read_state_dict as read_state_dict
    from zoo.takeover import from_smp as from_smp
    from zoo.training.result import TrainResult as TrainResult
    from zoo.training.training import train as train
    from zoo.upsampled_conv import UpsampledConv2d as UpsampledConv2d
    from zoo.weights import load_weights as load_weights

    __version__: str

_ERRORS = (
    "AmbiguousIdError ConfigError DataError ExportError InputError NegotiationError OptionError PluginError RegistrationError "
    "StoreError UnknownIdError WeightsError ZooError"
)
_HOMES = {
    "zoo.api": "build channels explain negotiate",
    "zoo.benchmark": "BenchConfig bench",
    "zoo.channel_list": "from_channels",
    "zoo.checkpointing": "checkpointed",
    "zoo.compatibility": "CompatibilityMatrix matrix",
    "zoo.data.segmentation_data": "SegmentationData",
    "zoo.data.sources": "open_data",
    "zoo.deployment": "Deployed deploy",
    "zoo.errors": _ERRORS,
    "zoo.exporting": "ExportReport export",
    "zoo.hookspecs": "API_VERSION hookimpl",
    "zoo.hub": "hub_file",
    "zoo.licences": "Licences",
    "zoo.loading": "load",
    "zoo.matching": "MatchedWeights WeightsReport load_encoder_weights match_weights",
    "zoo.model": "SegmentationModel",
    "zoo.plan": "Plan",
    "zoo.pairing": "Pairing",
    "zoo.pyramid": "FeatureMap Needs Pyramid",
    "zoo.prediction.files": "PredictedFiles predict_files",
    "zoo.prediction.prediction": "Prediction",
    "zoo.prediction.predictor": "Predictor",
    "zoo.pruning": "pruned unused_parameters",
    "zoo.registration": "register_decoder register_encoder",
    "zoo.registry": "list_decoders list_encoders",
    "zoo.resizing": "padded resized",
    "zoo.saving": "save",
    "zoo.sharing": "push_to_hub",
    "zoo.sizes": "ImageSizes",
    "zoo.specs": "DecoderSpec EncoderSpec Option Preprocessing",
    "zoo.state_dicts": "read_state_dict",
    "zoo.training.result": "TrainResult",
    "zoo.training.training": "train",
    "zoo.upsampled_conv": "UpsampledConv2d",
    "zoo.weights": "load_weights",
    "zoo.takeover": "from_smp",
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
