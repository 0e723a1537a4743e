# The public API for users and scripts. Each name is listed only here; zoo/__init__.py reads this file.
from zoo import errors as errors
from zoo import plugin as plugin
from zoo.api import build as build
from zoo.api import channels as channels
from zoo.api import explain as explain
from zoo.api import negotiate as negotiate
from zoo.benchmark import BenchConfig as BenchConfig
from zoo.benchmark import bench as bench
from zoo.benchmark.matrix import CompatibilityMatrix as CompatibilityMatrix
from zoo.benchmark.matrix import matrix as matrix
from zoo.checkpoints.load_weights import load_weights as load_weights
from zoo.checkpoints.loading import load as load
from zoo.checkpoints.matching import WeightsReport as WeightsReport
from zoo.checkpoints.saving import save as save
from zoo.checkpoints.sharing import push_to_hub as push_to_hub
from zoo.checkpoints.state_dicts import read_state_dict as read_state_dict
from zoo.checkpoints.takeover import from_smp as from_smp
from zoo.data.segmentation_data import SegmentationData as SegmentationData
from zoo.data.sources import open_data as open_data
from zoo.errors import ZooError as ZooError
from zoo.inference.deployment.deployed import Deployed as Deployed
from zoo.inference.deployment.deployed import deploy as deploy
from zoo.inference.exporting import ExportReport as ExportReport
from zoo.inference.exporting import export as export
from zoo.inference.prediction.files import PredictedFiles as PredictedFiles
from zoo.inference.prediction.files import predict_files as predict_files
from zoo.inference.prediction.prediction import Prediction as Prediction
from zoo.inference.prediction.predictor import Predictor as Predictor
from zoo.model.model import SegmentationModel as SegmentationModel
from zoo.model.probing.channel_list import from_channels as from_channels
from zoo.pairing.pairing import Pairing as Pairing
from zoo.pairing.plan import Plan as Plan
from zoo.registry.pyramid import Needs as Needs
from zoo.registry.registration import register_decoder as register_decoder
from zoo.registry.registration import register_encoder as register_encoder
from zoo.registry.registry import list_decoders as list_decoders
from zoo.registry.registry import list_encoders as list_encoders
from zoo.registry.specs import Preprocessing as Preprocessing
from zoo.search import calibrate as calibrate
from zoo.search import estimate_cost as estimate_cost
from zoo.search.estimate import CostEstimate as CostEstimate
from zoo.training.result import TrainResult as TrainResult
from zoo.training.training import train as train

__all__: list[str]
__version__: str
