"""The same model for inference, faster: passes over its graph, and the fastest runtime within an error."""

from zoo.inference.deployment.deployed import Deployed, deploy
from zoo.inference.deployment.passes import PASSES
from zoo.inference.deployment.report import DeployReport
from zoo.inference.runtimes import RUNTIMES

__all__ = ["PASSES", "RUNTIMES", "DeployReport", "Deployed", "deploy"]
