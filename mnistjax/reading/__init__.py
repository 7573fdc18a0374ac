"""Reading pictures of digits: one digit per picture (`digit`), or rows on a page (`page`)."""

from mnistjax.reading.digit import Predictions as Predictions
from mnistjax.reading.digit import PreparedDigit as PreparedDigit
from mnistjax.reading.digit import interpret as interpret
from mnistjax.reading.digit import open_picture as open_picture
from mnistjax.reading.digit import predict as predict
from mnistjax.reading.digit import prepare_digit as prepare_digit
from mnistjax.reading.page import FoundDigit as FoundDigit
from mnistjax.reading.page import Reading as Reading
from mnistjax.reading.page import annotate as annotate
from mnistjax.reading.page import describe_reading as describe_reading
from mnistjax.reading.page import read_digits as read_digits
from mnistjax.reading.submission import write_submission as write_submission
