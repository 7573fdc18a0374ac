"""An HTTP server that recognizes pictures with a trained network; it needs the extra `serve`."""

from mnistjax.serving.app import make_app as make_app
from mnistjax.serving.limits import Limits as Limits
from mnistjax.serving.network import CompiledNetwork as CompiledNetwork
from mnistjax.serving.server import check_installed as check_installed
from mnistjax.serving.server import listen as listen
from mnistjax.serving.server import run_app as run_app
