"""Pictures of digits: open, find the ink, segment, prepare, read."""

from mnistjax.reading.digits import Predictions as Predictions
from mnistjax.reading.digits import PreparedDigit as PreparedDigit
from mnistjax.reading.digits import predict as predict
from mnistjax.reading.digits import prepare_digit as prepare_digit
from mnistjax.reading.pictures import open_picture as open_picture
from mnistjax.reading.rows import FoundDigit as FoundDigit
from mnistjax.reading.rows import Reading as Reading
from mnistjax.reading.rows import annotate as annotate
from mnistjax.reading.rows import read_digits as read_digits
from mnistjax.reading.submission import write_submission as write_submission
