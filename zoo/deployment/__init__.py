"""The same model for inference, faster: passes over its graph, and the fastest runtime within an error."""

from zoo.deployment.deployed import Deployed, deploy
from zoo.deployment.passes import PASSES
from zoo.deployment.report import DeployReport
from zoo.deployment.runtimes import RUNTIMES

__all__ = ["PASSES", "RUNTIMES", "DeployReport", "Deployed", "deploy"]
