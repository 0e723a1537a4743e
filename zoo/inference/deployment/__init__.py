"""Make a model faster for inference: rewrite its graph, and choose the fastest runtime whose error is accepted."""

from zoo.inference.deployment.deployed import Deployed, deploy
from zoo.inference.deployment.passes import PASSES
from zoo.inference.deployment.report import DeployReport
from zoo.inference.runtimes import RUNTIMES

__all__ = ["PASSES", "RUNTIMES", "DeployReport", "Deployed", "deploy"]
