"""Linen modules: encoders give features, a classifier or a projector sits on top of them."""

from kdjax.models.blocks import Compute, ConvNorm, fold
from kdjax.models.cnn import CNN
from kdjax.models.heads import Classifier, Contrastive, Projector
from kdjax.models.resnet import ResNet, cifar_resnet, resnet18

__all__ = [
    "CNN",
    "Classifier",
    "Compute",
    "Contrastive",
    "ConvNorm",
    "Projector",
    "ResNet",
    "cifar_resnet",
    "fold",
    "resnet18",
]
