from . import fusion as fusion
from . import launch as launch
from . import shards as shards
from . import tasks as tasks
from .fusion.bundle.bundle import load_bundle as load_bundle
from .fusion.bundle.embedder import load_encoder as load_encoder
from .launch.whole_way.python_evaluation import compare as compare
from .launch.whole_way.python_evaluation import detect as detect
from .launch.whole_way.python_evaluation import export as export
from .launch.whole_way.python_evaluation import report as report
from .launch.whole_way.python_evaluation import robustness as robustness
from .launch.whole_way.python_evaluation import study as study
from .launch.whole_way.python_prediction import predict as predict
from .launch.whole_way.python_training import finetune as finetune
from .launch.whole_way.python_training import pretrain as pretrain
from .launch.whole_way.python_verbs import embed as embed
from .launch.whole_way.python_verbs import pack as pack
from .launch.whole_way.python_verbs import probe as probe
from .ssl.objective import PretextObjective as PretextObjective
from .ssl.pretext.base import PretextTask as PretextTask
from .ssl.tasks_by_name import PRETEXT_TASKS as PRETEXT_TASKS
from .ssl.tasks_by_name import build_pretext_task as build_pretext_task

__version__: str
