"""Linen modules: encoders give features, a classifier or a projector sits on top of them."""

from kdjax.models.bag_of_embeddings import BagOfEmbeddings
from kdjax.models.bert import BERT, BERTBlock, MaskedHead, MaskedLM, bert, bert_faults
from kdjax.models.blocks import Compute, Convention, ConvNorm, heads_faults
from kdjax.models.capture import Captured, capture
from kdjax.models.cnn import CNN
from kdjax.models.conformer import Conformer, ConformerBlock, conformer
from kdjax.models.connectors import (
    AttentionFusion,
    Pointwise,
    Regressor,
    Review,
    VariationalRegressor,
    ofd_connector,
    pointwise_to,
    regressor,
    review,
)
from kdjax.models.convnext import ConvNeXt, convnext
from kdjax.models.convolution import convolve, with_fast_convolutions
from kdjax.models.decoder import PatchDecoder, patches_of
from kdjax.models.efficientnet import efficientnet_b0, efficientnet_lite
from kdjax.models.folding import Folded, fold
from kdjax.models.heads import (
    Classifier,
    ClusterHead,
    EncoderProjector,
    Linear,
    Projector,
    Prototypes,
    called,
)
from kdjax.models.inverted_residual import MobileNet
from kdjax.models.log_mel import LogMel, OnLogMel
from kdjax.models.mlperf_tiny import DSCNN, TinyResNet, ds_cnn, mlperf_resnet8
from kdjax.models.mobilenet import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from kdjax.models.modern_bert import ModernBERT, modern_bert, modern_bert_faults, rotated
from kdjax.models.order import names_in_order
from kdjax.models.plain_cnn import PlainCNN
from kdjax.models.recurrent import LSTM, RecurrentNet, RecurrentText, SequencePool
from kdjax.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    cifar_resnet,
    resnet18,
    resnet34,
    resnet50,
)
from kdjax.models.se_resnet import se_resnet
from kdjax.models.shufflenet import ShuffleNetV2, shufflenet_v2
from kdjax.models.spec_augment import SpecAugment, spec_augmented
from kdjax.models.synced import Synced
from kdjax.models.vgg import VGG, vgg
from kdjax.models.vit import ViT, vit, vit_faults
from kdjax.models.wide_resnet import WideResNet, wide_resnet

__all__ = [
    "BERT",
    "CNN",
    "DSCNN",
    "LSTM",
    "VGG",
    "AttentionFusion",
    "BERTBlock",
    "BagOfEmbeddings",
    "BasicBlock",
    "Bottleneck",
    "Captured",
    "Classifier",
    "ClusterHead",
    "Compute",
    "Conformer",
    "ConformerBlock",
    "ConvNeXt",
    "ConvNorm",
    "Convention",
    "EncoderProjector",
    "Folded",
    "Linear",
    "LogMel",
    "MaskedHead",
    "MaskedLM",
    "MobileNet",
    "ModernBERT",
    "OnLogMel",
    "PatchDecoder",
    "PlainCNN",
    "Pointwise",
    "Projector",
    "Prototypes",
    "RecurrentNet",
    "RecurrentText",
    "Regressor",
    "ResNet",
    "Review",
    "SequencePool",
    "ShuffleNetV2",
    "SpecAugment",
    "Synced",
    "TinyResNet",
    "VariationalRegressor",
    "ViT",
    "WideResNet",
    "bert",
    "bert_faults",
    "called",
    "capture",
    "cifar_resnet",
    "conformer",
    "convnext",
    "convolve",
    "ds_cnn",
    "efficientnet_b0",
    "efficientnet_lite",
    "fold",
    "heads_faults",
    "mlperf_resnet8",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "modern_bert",
    "modern_bert_faults",
    "names_in_order",
    "ofd_connector",
    "patches_of",
    "pointwise_to",
    "regressor",
    "resnet18",
    "resnet34",
    "resnet50",
    "review",
    "rotated",
    "se_resnet",
    "shufflenet_v2",
    "spec_augmented",
    "vgg",
    "vit",
    "vit_faults",
    "wide_resnet",
    "with_fast_convolutions",
]
