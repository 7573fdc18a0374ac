"""A trained network for programs that have no JAX, or only JAX."""

from mnistjax.export.checking import ExportCheck as ExportCheck
from mnistjax.export.checking import check_export as check_export
from mnistjax.export.layers import Conv as Conv
from mnistjax.export.layers import Crop as Crop
from mnistjax.export.layers import Dense as Dense
from mnistjax.export.layers import Flatten as Flatten
from mnistjax.export.layers import Layer as Layer
from mnistjax.export.layers import MaxPool as MaxPool
from mnistjax.export.layers import Relu as Relu
from mnistjax.export.layers import sequential_layers as sequential_layers
from mnistjax.export.loading import read_origin as read_origin
from mnistjax.export.onnx_file import write_onnx as write_onnx
from mnistjax.export.origin import describe_origin as describe_origin
from mnistjax.export.safetensors_file import write_safetensors as write_safetensors
from mnistjax.export.stablehlo import write_stablehlo as write_stablehlo
