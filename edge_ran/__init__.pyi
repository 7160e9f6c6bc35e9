from edge_ran.api import benchmark as benchmark
from edge_ran.api import classify_folder as classify_folder
from edge_ran.api import convert as convert
from edge_ran.api import measure_accuracy as measure_accuracy
from edge_ran.api import read_record as read_record
from edge_ran.api import write_record as write_record
from edge_ran.bench import Bench as Bench
from edge_ran.bench import Plan as Plan
from edge_ran.card import Overrides as Overrides
from edge_ran.classifier import Classifier as Classifier
from edge_ran.classifier import Prediction as Prediction
from edge_ran.errors import AcceleratorError as AcceleratorError
from edge_ran.errors import CameraError as CameraError
from edge_ran.errors import EdgeRanError as EdgeRanError
from edge_ran.errors import EnvironmentMissing as EnvironmentMissing
from edge_ran.errors import GateError as GateError
from edge_ran.errors import InputError as InputError
from edge_ran.errors import OutputExists as OutputExists
from edge_ran.errors import UsageError as UsageError
from edge_ran.evaluate import EvalReport as EvalReport
from edge_ran.picture import read_picture as read_picture
from edge_ran.runtime import RuntimeOptions as RuntimeOptions
from edge_ran.stream import Result as Result
from edge_ran.stream import Stream as Stream
from edge_ran.stream import Summary as Summary

__version__: str
